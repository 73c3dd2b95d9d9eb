"""A query tower as an ONNX model, for services without torch and tgq: onnxruntime and tokenizers embed a query.

    model.onnx      input_ids, attention_mask int64 [n, L] -> vectors float32 [n, De] at unit length; n and L are free
    tokenizer.json  the checkpoint's tokenizer, with the tower's truncation and padding
    config.json     model version of the items, version of the tower, width, length, and how exact the model was when it was checked
    README.md       the lines that embed a query
"""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tgq.errors import ModelError, UsageError
from tgq.query_tower.config import version_of
from tgq.query_tower.tower import QueryTower
from tgq.storage.new_folder import new_folder

MODEL, TOKENIZER, CONFIG, README = "model.onnx", "tokenizer.json", "config.json", "README.md"
TOLERANCE = 1e-4  # largest difference of a number of a vector from torch's
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
ONE_FILE = 1_500_000_000  # bytes of weights; a protobuf message holds 2 GiB, so larger weights go to a second file
TEXTS = (
    "a", "8", "red shoe", "Red  Shoe ", "blue cotton shirt for men, size XL", "café crème brûlée", "cafe\u0301", "Überzug für Möbel", "ÅNGSTRÖM",
    "чёрные кроссовки", "红色 运动鞋", "赤い靴", "حذاء أحمر", "50% off!!! (new)", "\u00bd inch bolt", "it's 12'' wide & \"cheap\"", "shoe\U0001f45f",
    "wireless " * 4, "a long query about a blue cotton shirt for men with short sleeves and a round neck " * 8, "x" * 400, "supercalifragilistic",
)  # fmt: skip

EXAMPLE = '''\
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file("tokenizer.json")  # cuts and pads as in training


def embed(queries):
    """Unit vectors, float32 [n, De]."""
    rows = tokenizer.encode_batch(list(queries))
    ids = np.array([row.ids for row in rows], np.int64)
    mask = np.array([row.attention_mask for row in rows], np.int64)
    return session.run(["vectors"], {"input_ids": ids, "attention_mask": mask})[0]
'''


@dataclass(frozen=True)
class Exported:
    """The result of an export: the folder, De, and the largest difference from torch over the checked texts."""

    folder: Path
    dim: int
    difference: float


class _Graph(nn.Module):
    """What the ONNX model computes."""

    def __init__(self, tower: QueryTower):
        super().__init__()
        self.tower = tower

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.tower(self.tower.text.pooled_of(input_ids, attention_mask)).float()


def export_onnx(tower_folder: Path, out: str | Path) -> Exported:
    """Write a query tower as an ONNX model with its tokenizer, checked against torch on TEXTS. The folder appears whole or not at all.

    Cost: the checkpoint in memory three times, and about ten seconds for a MiniLM.

    Args:
        out: a new or empty folder.

    Raises:
        UsageError: the folder has files, or a package is missing.
        ModelError: the tower is incomplete, its checkpoint cannot be exported, or the model's vectors differ from torch's by more than
            TOLERANCE.
    """
    place = Path(out).expanduser()
    need_packages()
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise UsageError(f"{place} exists and is not an empty folder", "give a new folder, or empty this one")
    tower = QueryTower.load(tower_folder)
    with new_folder(place) as scratch:
        write_tokenizer(tower, scratch / TOKENIZER)
        write_model(tower, scratch / MODEL)
        found = difference(tower, scratch)
        if not found <= TOLERANCE:  # also if it is no number
            raise ModelError(f"the ONNX model's vectors differ from torch's by {found:.1e}, more than {TOLERANCE:.0e}", "use the tower with tgq")
        config = {"item_model": tower.config.item_model, "query_version": version_of(tower_folder), "dim": tower.dim, "max_tokens": tower.text.max_length,
                  "inputs": ["input_ids", "attention_mask"], "output": "vectors", "normalised": True, "metric": "inner product",
                  "max_difference": found, "checked_texts": len(TEXTS), "made_with": {name: _version(name) for name in ("torch", *PACKAGES)}}  # fmt: skip
        (scratch / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        (scratch / README).write_text(_readme(tower))
    return Exported(place, tower.dim, found)


def need_packages(names: Sequence[str] = PACKAGES) -> None:
    """Check that the optional packages are installed.

    Raises:
        UsageError: one is missing; with all that are.
    """
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise UsageError(f"the export to ONNX needs the packages {', '.join(missing)}", "install them: pip install 'tgq[onnx]'")


def write_model(tower: QueryTower, path: Path) -> None:
    """Write the graph and the weights.

    Raises:
        ModelError: torch cannot export the checkpoint.
    """
    graph = _Graph(tower).eval()
    ids = torch.full((2, min(7, tower.text.max_length)), 1)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    weights = sum(value.numel() * value.element_size() for value in graph.state_dict().values())
    try:
        with _quiet():
            program = torch.onnx.export(
                graph, (ids, torch.ones_like(ids)), input_names=["input_ids", "attention_mask"], output_names=["vectors"],
                dynamic_shapes={"input_ids": free, "attention_mask": free}, dynamo=True, verbose=False,
            )  # fmt: skip
            assert program is not None  # with dynamo
            for node in program.model.graph.all_nodes():
                node.metadata_props.clear()  # the lines of source code on this machine that each node comes from
            program.save(str(path), external_data=weights > ONE_FILE)
    except Exception as error:  # torch, onnx and onnxscript raise classes of their own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the text checkpoint {tower.config.text} cannot be exported to ONNX ({reason})", "use the tower with tgq") from None


def write_tokenizer(tower: QueryTower, path: Path) -> None:
    """Write the tokenizer as one file, with truncation and padding as the tower has them.

    Raises:
        ModelError: the checkpoint's tokenizer is not one of the library tokenizers.
    """
    from tokenizers import Tokenizer

    ours = tower.text.tokenizer
    backend = getattr(ours, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(f"the tokenizer of {tower.config.text} has no tokenizer.json", "save the checkpoint with a fast tokenizer")
    own = Tokenizer.from_str(backend.to_str())  # a copy, because the tower goes on using its own
    own.enable_truncation(tower.text.max_length, direction=ours.truncation_side)
    fixed = tower.text.max_length if tower.text.fixed_length else None
    own.enable_padding(direction=ours.padding_side, pad_id=ours.pad_token_id, pad_type_id=ours.pad_token_type_id, pad_token=ours.pad_token, length=fixed)
    own.save(str(path))


def difference(tower: QueryTower, folder: Path) -> float:
    """The largest difference between a number of the folder's vectors and torch's over TEXTS, all together and the first few alone.

    Raises:
        ModelError: onnxruntime refuses the model.
    """
    alone = TEXTS[:4]
    try:
        found = np.concatenate([embed(folder, TEXTS), *(embed(folder, [text]) for text in alone)])
    except Exception as error:  # onnxruntime raises classes of its own
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"onnxruntime cannot run the model of {tower.config.text} ({reason})", "use the tower with tgq") from None
    return float(np.abs(found - tower.encode_queries([*TEXTS, *alone])).max())


def embed(folder: Path, texts: Sequence[str]) -> np.ndarray:
    """What the example of the README gives for the files of a folder: unit vectors, float32 `[n, De]`."""
    import onnxruntime
    from tokenizers import Tokenizer

    session = onnxruntime.InferenceSession(str(folder / MODEL), providers=["CPUExecutionProvider"])
    rows = Tokenizer.from_file(str(folder / TOKENIZER)).encode_batch(list(texts))
    inputs = {"input_ids": np.array([row.ids for row in rows], np.int64), "attention_mask": np.array([row.attention_mask for row in rows], np.int64)}
    vectors: np.ndarray = session.run(["vectors"], inputs)[0]
    return vectors


def _readme(tower: QueryTower) -> str:
    return f"""# Query tower

It maps what shoppers type to vectors of width {tower.dim} that are compared with the item embeddings of tgq's model
`{tower.config.item_model}` by inner product. Needed: `pip install onnxruntime tokenizers numpy`.

```python
{EXAMPLE}```

`embed(["red running shoe"])` has the shape `[1, {tower.dim}]`. Texts are cut at {tower.text.max_length} tokens. An empty text has no meaning:
leave it out. `config.json` names the versions, and how far the vectors were from torch's when the model was made.
"""


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes about packages and types that this model does not use; errors are still raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
