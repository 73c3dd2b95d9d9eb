"""Search in the published shards by an item, a text or a picture. Needs no Spark: the manifest names the files to open.

A text is embedded by the query tower of the published encoder, or as a title by the encoder itself if it has no query tower.

Cost: the shards of the categories that are searched are read and checked (about 1 GB/s); then a FAISS search of one query. A hybrid search
scores the texts that share a word with the query too; see `texts.text_index` for its first use.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from tgq.encoder.text import metadata_text, normalise
from tgq.errors import ModelError, UsageError, WarehouseError
from tgq.grounding.policy import Policy
from tgq.images.decode import ImageError, ImageLimits, decode_image
from tgq.index.texts import ordered, text_index
from tgq.registry.grounding import published_policy
from tgq.registry.loading import load_encoder, load_query_tower, versions_of
from tgq.registry.selection import published_folder
from tgq.retrieval import manifest
from tgq.retrieval.bm25 import best_rows
from tgq.retrieval.fusion import reciprocal_rank_fusion
from tgq.retrieval.manifest import Manifest
from tgq.retrieval.shards import OpenShard, ShardFile, open_shards, read_details, search_shards
from tgq.settings.sections import Settings
from tgq.storage.paths import absolute

if TYPE_CHECKING:
    from tgq.encoder.model import TGQFormer

Hit = dict[str, Any]
DEPTH = 1000  # places of each ranking that a hybrid search fuses; one behind them would add less than 1 / 1060


def search(
    settings: Settings, *, item_id: str | None = None, text: str | None = None, image: str | Path | None = None,
    category: str | None = None, k: int = 10, hybrid: bool = False,
) -> list[Hit]:  # fmt: skip
    """The k best published items: dicts with item_id, title, brand, category, score, best first.

    Exactly one of item_id, text and image is the query. An item does not find itself. `category` restricts the search to that
    category and those below it. The score is the cosine of the vectors, or for a hybrid search that of `reciprocal_rank_fusion`.

    Args:
        hybrid: fuse the ranking by vectors with the one by BM25 of titles and brands, the first DEPTH (at least k) places of each. The
            frequencies of words are those in all published items, also where a category is searched.

    Raises:
        UsageError: no or several queries, an empty text, an unknown item or category, an unreadable picture, hybrid without a text.
        WarehouseError: nothing is published, or a shard is damaged.
        ModelError: the encoder that the shards were made with is neither in the warehouse nor configured, or its query tower is damaged or
            of another encoder.
    """
    if sum(given is not None for given in (item_id, text, image)) != 1:
        raise UsageError("search needs exactly one of an item, a text and a picture", "name one of them")
    if hybrid and text is None:
        raise UsageError("a hybrid search compares words, and there is no text", "search by a text, or without hybrid")
    if text is not None and not text.strip():
        raise UsageError("the text of the search is empty", "give at least a word")
    root = absolute(settings.warehouse.path)
    published = need_published(settings)
    chosen = [file for file in published.shards if category is None or is_under(file.category, category)]
    if not chosen:
        tops = sorted({levels(file.category)[0] for file in published.shards})[:12]
        raise UsageError(f"no category '{category}' is published", f"name a path that begins with one of: {', '.join(tops)}")
    opened = open_shards(root, chosen)
    if item_id is not None:
        query = item_vector(root, published, opened, item_id)
    else:
        query = encoded(settings, published, text, image, category)
    places = max(k, DEPTH) if hybrid else k + (item_id is not None)
    scores, ids = search_shards(opened, query, places)
    found = [(found_id, float(score)) for found_id, score in zip(ids[0], scores[0], strict=True) if found_id not in (None, item_id)]
    if hybrid and text is not None:
        by_words = ranked_by_words(root, published, opened, text, places)
        found = reciprocal_rank_fusion([[found_id for found_id, _ in found], by_words])
    found = found[:k]
    shown = details(root, opened, [found_id for found_id, _ in found])
    return [{"item_id": found_id, **shown[found_id], "score": score} for found_id, score in found]


def need_published(settings: Settings) -> Manifest:
    """The published generation.

    Raises:
        WarehouseError: there is none.
    """
    published = manifest.load_current(absolute(settings.warehouse.path))
    if published is None:
        raise WarehouseError(f"nothing is published in {settings.warehouse.path}", "run `tgq nightly` first, or name another --warehouse")
    return published


def need_encoder(settings: Settings, published: Manifest) -> str:
    """The folder of the encoder that the generation was made with.

    Raises:
        ModelError: it is another one, or cannot be loaded.
    """
    folder = published_folder(settings, published)
    version, _ = versions_of(folder)
    if version != published.model_version:
        raise ModelError(
            f"the shards are of model {published.model_version}, the encoder {folder} is {version}",
            f"set encoder.path to the encoder of run {published.run_id} ({published.encoder})",
        )
    return folder


def levels(category: str) -> list[str]:
    """The levels of a category path."""
    return [level.strip() for level in category.split(">")]


def is_under(category: str, wanted: str) -> bool:
    """Whether `wanted` is the category itself or one above it, ignoring case and the Unicode form: a typed accent may be one character or two."""
    path, prefix = ([normalise(level).casefold() for level in levels(c)] for c in (category, wanted))
    return path[: len(prefix)] == prefix


def item_vector(root: str, published: Manifest, opened: list[OpenShard], item_id: str) -> np.ndarray:
    """The vector of a published item, float32 [1, D], from its shard. A compressed shard gives an approximation."""
    rest = [file for file in published.shards if file not in [o.file for o in opened]]
    for one in (*opened, *(o for file in rest for o in open_shards(root, [file]))):
        place = np.searchsorted(one.shard.ids, item_id)
        if place < len(one.shard.ids) and one.shard.ids[place] == item_id:
            index = one.shard.index
            if hasattr(index, "make_direct_map"):
                index.make_direct_map()
            return index.reconstruct(int(place))[None]
    raise UsageError(f"item '{item_id}' is not published", "check the id; an item without an embedding cannot be searched by")


def encoded(settings: Settings, published: Manifest, text: str | None, image: str | Path | None, category: str | None = None) -> np.ndarray:
    """The vector of a text or of a picture alone, float32 [1, D].

    Args:
        category: what the picture shows, for a detector that is asked for it.
    """
    import torch

    folder = need_encoder(settings, published)
    if text is not None and (tower := load_query_tower(folder, settings.encoder.device)) is not None:
        tower.config.need_fit(published.model_version)
        return tower.encode_queries([text])
    encoder = load_encoder(folder, settings.encoder.device, settings.encoder.dtype)
    pixels, index = None, -1
    if image is not None:
        limits = ImageLimits(max_bytes=settings.images.max_bytes, max_pixels=settings.images.max_pixels)
        grounding = published_policy(published, settings.enrich.grounding, folder)
        try:
            data = Path(image).read_bytes()
            picture = grounded(data, limits, encoder, grounding, category) if grounding else decode_image(data, limits, encoder.vision.input_size)
        except OSError as error:
            raise UsageError(f"the picture {image} cannot be read ({error.strerror})", "name a picture file") from None
        except ImageError as error:
            raise UsageError(f"the picture {image} is {error.reason.replace('_', ' ')} ({error.detail})", "name another picture") from None
        pixels, index = encoder.vision.preprocess(picture)[None], 0
    words = metadata_text(text, None, None, None) if text is not None else ""
    return encoder.encode(pixels, torch.tensor([index]), [words], [""]).embedding.numpy()


def grounded(data: bytes, limits: ImageLimits, encoder: TGQFormer, policy: Policy, category: str | None) -> Image.Image:
    """The part of a picture that the night would embed of an item of this category without other metadata.

    Raises:
        ImageError: the picture cannot be decoded.
        ModelError: the detector cannot be loaded.
    """
    from tgq.grounding.box import cropped
    from tgq.grounding.opening import open_detector
    from tgq.inference.grounder import Grounder, decode_for_crop

    phrase = policy.phrase(category, metadata_text(None, None, category, None))
    if phrase is None:
        return decode_image(data, limits, encoder.vision.input_size)
    picture = decode_for_crop(data, limits, encoder.vision.input_size)
    [found] = Grounder(open_detector(policy, encoder), policy.threshold, policy.margin)([picture], [phrase])
    return cropped(picture, found.crop)


def ranked_by_words(root: str, published: Manifest, opened: list[OpenShard], text: str, k: int) -> list[str]:
    """The ids of the k items of these shards with the best BM25 scores, best first; only items that have a word of the text.

    Equal scores are ordered as in `search_shards`: by category, shard and id.
    """
    shards = {(one.file.category, one.file.shard): one.shard.ids for one in opened}
    index, start, rows, ids = text_index(root, published), 0, [], []
    for file in ordered(published):
        if (file.category, file.shard) in shards:
            rows.append(np.arange(start, start + file.n_items))
            ids.append(shards[file.category, file.shard])
        start += file.n_items
    searched, names = np.concatenate(rows), np.concatenate(ids)
    best = best_rows(index.scores(text), k, searched)
    return [str(name) for name in names[np.searchsorted(searched, best)]]


def details(root: str, opened: list[OpenShard], ids: list[str]) -> dict[str, Hit]:
    """Title, brand and category of some items of these shards."""
    shown: dict[str, Hit] = {}
    for one in opened:
        wanted = [i for i in np.searchsorted(one.shard.ids, ids) if i < len(one.shard.ids)]
        rows = [int(row) for row in dict.fromkeys(wanted) if one.shard.ids[row] in ids]
        if rows:
            for row in _rows(root, one.file, rows):
                shown[row["item_id"]] = {"title": row["title"], "brand": row["brand"], "category": one.file.category}
    return shown


def _rows(root: str, file: ShardFile, rows: list[int]) -> list[Hit]:
    return read_details(root, file).take(rows).to_pylist()
