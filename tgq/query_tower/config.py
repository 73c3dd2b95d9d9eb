"""The configuration of a query tower, read without torch, and where its files are."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tgq.encoder.config import LARGEST
from tgq.encoder.towers import hub
from tgq.errors import ModelError

FOLDER = "query_tower"  # in an encoder's folder
CONFIG, WEIGHTS, RECORD = "config.json", "model.safetensors", "training.json"  # the record of its training may be absent


@dataclass(frozen=True)
class QueryTowerConfig:
    """The configuration of a query tower, saved as `config.json`."""

    item_model: str  # model version of the item embeddings that it answers with
    dim: int  # De, width of an item embedding
    text: str = "all-minilm-l6-v2"  # reference of the text checkpoint: bundled name, folder (relative to the tower's) or hub name
    text_length: int = 32  # tokens of a query; the rest is cut off
    trained_layers: int = 0  # top layers of the checkpoint that were fine-tuned, and are saved with the tower

    @classmethod
    def read(cls, folder: Path) -> QueryTowerConfig:
        """Read the configuration of a query tower's folder.

        Raises:
            ModelError: the folder has no `config.json`, or one that is not a query tower's.
        """
        path = folder / CONFIG
        if not path.is_file():
            raise ModelError(f"{folder} has no query tower", "train one with `tgq train-queries`")
        try:
            config = cls(**json.loads(path.read_text()))
            if not (isinstance(config.item_model, str) and isinstance(config.text, str)):
                raise ValueError("item_model and text are texts")
            if not all(type(n) is int and 0 <= n <= LARGEST for n in (config.dim, config.text_length, config.trained_layers)):
                raise ValueError(f"dim, text_length and trained_layers are numbers from 0 to {LARGEST}")
            return config
        except (ValueError, TypeError, RecursionError) as error:
            raise ModelError(f"{path} is not the configuration of a query tower ({error})", "train it again with this version") from None

    def need_fit(self, model_version: str) -> None:
        """Check that the tower answers with the item embeddings of `model_version`.

        Raises:
            ModelError: it was trained for those of another encoder, so its vectors cannot be compared with them.
        """
        if self.item_model != model_version:
            raise ModelError(
                f"the query tower is for item embeddings of model {self.item_model}, these are of {model_version}",
                f"train it again with `tgq train-queries`, or remove {FOLDER} from the encoder's folder",
            )


def tower_folder(encoder_folder: str | Path) -> Path | None:
    """The folder of an encoder's query tower; None if the encoder has none."""
    folder = Path(encoder_folder) / FOLDER
    return folder if (folder / CONFIG).is_file() else None


def held_out_share(folder: Path) -> float | None:
    """The share of the training queries that the training of a query tower held out, as its record says; None without a record.

    Raises:
        ModelError: the file is not the record of a training.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        return float(json.loads(path.read_text())["training"]["validation_share"])
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} is not the record of a query tower's training ({error})", "copy it again, or remove it") from None


def version_of(folder: Path) -> str:
    """16 hex digits that identify a query tower: a hash of its weights, its configuration and its text checkpoint.

    It is not part of the encoder's `model_version`, because a query tower changes no item embedding.

    Raises:
        ModelError: the tower or its checkpoint is incomplete.
    """
    config = QueryTowerConfig.read(folder)
    checkpoint = hub.resolve(config.text, folder)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"the query tower {folder} has no {WEIGHTS}", "train it again, or copy the whole folder")
    files = [folder / WEIGHTS, *sorted(file for file in checkpoint.rglob("*") if file.is_file())]
    shape = asdict(config)
    del shape["text"]  # the same checkpoint in another folder is the same tower
    parts = [json.dumps(shape, sort_keys=True), *(f"{file.name} {hub.sha256_of(file)}" for file in files)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
