"""The study's query sets as arrays: items under the bundled encoder, and judged queries in a training, a validation and a test part."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from catalogs import SHARED

from tgq.catalog.fields import encoder_texts, readable_fields
from tgq.demo.catalog import draw_catalog
from tgq.encoder.model import TGQFormer
from tgq.errors import SourceError
from tgq.feeds import values
from tgq.images.decode import ImageLimits, decode_image
from tgq.queries.click_model import DEEPEST, attraction, fit
from tgq.query_tower.text import normalised_text
from tgq.query_training.data.judged import Items, JudgedQueries
from tgq.query_training.data.split import is_validation
from tgq.settings.load import load_settings
from tgq.settings.sections import ClickSettings, Settings

BATCH = 64
SETS = {"homedepot": "catalogs/homedepot", "fashion": "catalogs/fashion-queries", "retrotech": "catalogs/retrotech", "demo": "catalogs/demo"}


@dataclass(frozen=True)
class QueryCatalog:
    """A catalog with queries. The rows of all arrays are its items."""

    name: str
    settings: Settings
    ids: list[str]
    texts: list[str]  # metadata texts
    fields: list[dict]  # what the encoder may read
    items: Items
    text_only: np.ndarray  # float32 [N, De], embeddings without the pictures
    image_only: np.ndarray  # float32 [N, De], embeddings without the texts; equal rows where no item has a picture
    shifted: np.ndarray  # float32 [N, Dg], image features after the connector has shifted them
    queries: JudgedQueries

    def parts(self, test_share: float = 0.5) -> tuple[JudgedQueries, JudgedQueries, JudgedQueries]:
        """(training, validation, test), by hashes of the normalised text, so that no text is in two parts."""
        test = np.array([is_validation(f"test of a study {normalised_text(text)}", test_share) for text in self.queries.texts], bool)
        validation = np.array([is_validation(text, 0.15) for text in self.queries.texts], bool)
        masks = (~test & ~validation, ~test & validation, test)
        return tuple(self.queries.subset(np.flatnonzero(mask)) for mask in masks)  # type: ignore[return-value]


def read_catalog(name: str, work: Path) -> QueryCatalog:
    """Read a catalog and run the bundled encoder over it, once: the arrays are kept in `work`.

    Raises:
        SourceError: its data are missing.
    """
    folder = SHARED / "data" / name
    if name == "demo":
        folder = work / "demo"
        if not (folder / "catalog.parquet").is_file():
            draw_catalog(folder, items=2000, seed=0)
    if not (folder / "catalog.parquet").is_file():
        raise SourceError(f"there is no {folder}", "leave it out with --sets")
    settings = load_settings(["local", SETS[name]], []).settings
    table = pd.read_parquet(folder / "catalog.parquet")
    rows = [_row(row) for row in table.to_dict("records")]
    ids = table["item_id"].astype(str).tolist()
    encoder = TGQFormer.from_pretrained("default")
    kept = work / f"{name}-{encoder.model_version}.npz"
    if not kept.is_file():
        work.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **encoded(encoder, settings, rows, table.get("image"), folder))
    arrays = dict(np.load(kept))
    texts = [encoder_texts(row, settings.metadata)[0] for row in rows]
    fields = [readable_fields(row, settings.metadata) for row in rows]
    items = Items(arrays["vectors"], arrays["text"], arrays["image"])
    judged = clicked(folder, settings) if settings.queries.clicks.path else judgments(folder)
    extra = (arrays[key] for key in ("text_only", "image_only", "shifted"))
    return QueryCatalog(name, settings, ids, texts, fields, items, *extra, queries=queries_of(judged, ids, settings))


def _row(row: dict) -> dict:
    clean = {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}
    return {"title": clean.get("title"), "brand": clean.get("brand"), "category": values.category(clean.get("category"), ">"),
            "attributes": values.attributes(clean.get("attributes"))}  # fmt: skip


@torch.no_grad()
def encoded(encoder: TGQFormer, settings: Settings, rows: list[dict], images: pd.Series | None, folder: Path) -> dict[str, np.ndarray]:
    """Embeddings and features of all items. Cost: a pass of both towers per item."""
    n, widths = len(rows), {"vectors": encoder.dim, "text_only": encoder.dim, "image_only": encoder.dim, "text": encoder.text.pooled_width}
    out = {name: np.zeros((n, width), np.float32) for name, width in widths.items()}
    pictures = [None] * n if images is None else [value if isinstance(value, str) and value else None for value in images]
    width = encoder.vision.pooled_width if any(pictures) else 0
    out |= {name: np.zeros((n, width), np.float32) for name in ("image", "shifted")}
    texts = [encoder_texts(row, settings.metadata) for row in rows]
    limits = ImageLimits(max_bytes=settings.images.max_bytes, max_pixels=settings.images.max_pixels)
    for part in np.array_split(np.argsort([len(text) for text, _ in texts], kind="stable"), -(-n // BATCH)):
        words, titles = zip(*(texts[i] for i in part), strict=True)
        if not width:  # without a picture only the text's feature has an influence
            _, mask, pooled = encoder.encode_text(words)
            none = torch.zeros(len(part), encoder.vision.pooled_width)
            vectors = F.normalize(encoder.head.base(none, torch.zeros(len(part), dtype=torch.bool), pooled, mask.any(-1)), dim=-1)
            out["vectors"][part] = out["text_only"][part] = vectors.numpy()
            out["text"][part] = pooled.numpy()
            continue
        shown = [k for k, i in enumerate(part) if pictures[i]]
        pixels = [encoder.vision.preprocess(decode_image((folder / pictures[part[k]]).read_bytes(), limits, encoder.vision.input_size)) for k in shown]
        index = torch.full((len(part),), -1)
        index[shown] = torch.arange(len(shown))
        features = encoder.features(encoder.encode_image(torch.stack(pixels)) if pixels else None, index, words, titles)
        nothing, everything = torch.zeros(len(part), dtype=torch.bool), torch.ones(len(part), dtype=torch.bool)
        out["vectors"][part] = encoder.embed(features).embedding.numpy()
        out["text_only"][part] = encoder.embed(features.without(everything, nothing)).embedding.numpy()
        out["image_only"][part] = encoder.embed(features.without(nothing, everything)).embedding.numpy()
        out["text"][part], out["image"][part] = features.text.numpy(), features.image.numpy()
        streams, _ = encoder.streams(features)
        out["shifted"][part] = (encoder.head.shifted_image(features, streams) * features.has_image[:, None]).numpy()
    return out


def judgments(folder: Path) -> pd.DataFrame:
    """(text, item_id, grade) of the files of queries and judgments."""
    queries, judged = (pd.read_parquet(folder / f"{name}.parquet") for name in ("queries", "judgments"))
    return judged.merge(queries, on="query_id").rename(columns={"query": "text"})[["text", "item_id", "grade"]]


def clicked(folder: Path, settings: Settings) -> pd.DataFrame:
    """(text, item_id, grade) of a click log, by the click model of the pipeline."""
    options: ClickSettings = settings.queries.clicks
    log = pd.read_parquet(folder / str(options.path), columns=["query", "item_id", "rank", "clicked"])
    log["rank"] = np.minimum(log["rank"] - log["rank"].min(), DEEPEST - 1)
    sums = log.groupby(["query", "item_id", "rank"])["clicked"].agg(["size", "sum"]).reset_index()
    sums["pair"] = sums.groupby(["query", "item_id"]).ngroup()
    ranks, pair, shown, clicks = (sums[name].to_numpy() for name in ("rank", "pair", "size", "sum"))
    of_pair = np.bincount(pair, clicks)

    def shown_under(examined: np.ndarray, rate: float) -> np.ndarray:
        expected = rate * np.bincount(pair, shown * examined[ranks])
        weight = attraction(of_pair, expected, options.prior_clicks) if rate else np.ones(len(of_pair))
        return np.bincount(ranks, shown * weight[pair])

    examination, rate = fit(np.bincount(ranks, clicks), shown_under, options.prior_impressions)
    examined = np.bincount(pair, shown * examination[ranks])
    value = attraction(of_pair, rate * examined, options.prior_clicks)
    pairs = sums.drop_duplicates("pair").sort_values("pair")[["query", "item_id"]].rename(columns={"query": "text"})
    pairs["grade"] = np.searchsorted(options.thresholds, value, "right")
    return pairs[examined >= options.min_examined]


def queries_of(judged: pd.DataFrame, ids: list[str], settings: Settings) -> JudgedQueries:
    """Queries with at least one item of a gain, in the order of their texts. Judgments of one text and item are averaged."""
    place = {item_id: row for row, item_id in enumerate(ids)}
    judged = judged.assign(row=judged["item_id"].astype(str).map(place)).dropna(subset="row")
    judged = judged.groupby(["text", "row"], sort=True)["grade"].mean().reset_index()
    judged["gain"] = (judged["grade"] - settings.queries.irrelevant_grade).clip(lower=0)
    judged = judged[judged.groupby("text")["gain"].transform("max") > 0]
    sizes = judged.groupby("text", sort=True).size()
    offsets = np.concatenate([[0], np.cumsum(sizes.to_numpy())]).astype(np.int64)
    none = np.full((len(sizes), 0), -1, np.int64)
    return JudgedQueries(sizes.index.tolist(), offsets, judged["row"].to_numpy(np.int64), judged["gain"].to_numpy(float), none)


def dumped(value: object) -> str:
    """JSON with sorted keys, for result files."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
