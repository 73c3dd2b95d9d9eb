"""The heads: for each key a softmax over its values, linear in the encoder's frozen picture and text features.

The text feature is that of the item's texts without its attributes, so a head cannot read what it is asked for. The last place of each softmax is
OTHER: the item has a value that is not in the vocabulary, and nothing is said. A value is said only if its calibrated probability reaches the key's
threshold, which training chooses for a wanted precision on groups that the heads have not seen.

Files of a folder: `attributes.json` (vocabulary, towers, temperatures, thresholds) and `heads.safetensors`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from tgq.attributes.vocabulary import Vocabulary
from tgq.errors import ModelError

FORMAT = 1  # to be raised when the same files give other values
CONFIG, WEIGHTS = "attributes.json", "heads.safetensors"
BUNDLED = Path(__file__).parent / "pretrained" / "default"  # heads for the drawn demo catalog
CHUNK = 4096  # items in a pass


@dataclass(frozen=True)
class ItemFeatures:
    """Features of N items by the frozen towers, float32; rows of zeros where an item has no picture or no text."""

    image: np.ndarray  # [N, Dg]
    text: np.ndarray  # [N, Dp], of the texts without attributes

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: np.ndarray | slice) -> ItemFeatures:
        return ItemFeatures(self.image[rows], self.text[rows])


@dataclass(frozen=True)
class HeadsConfig:
    """All that the weights do not say."""

    vocabulary: Vocabulary
    vision: str  # fingerprints of the towers whose features the heads read
    text: str
    image_width: int
    text_width: int
    temperatures: Mapping[str, float] = field(default_factory=dict)  # by key; 1 if there is none
    thresholds: Mapping[str, float | None] = field(default_factory=dict)  # by key, on calibrated probabilities; None: the key is never said

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "format": FORMAT, "vision": self.vision, "text": self.text, "image_width": self.image_width, "text_width": self.text_width,
            "temperatures": dict(self.temperatures), "thresholds": dict(self.thresholds), **self.vocabulary.as_json(),
        }  # fmt: skip

    @classmethod
    def read(cls, folder: Path) -> HeadsConfig:
        """The configuration in a folder.

        Raises:
            ModelError: there is none, or it is not one of this version.
        """
        return HeadFiles.read(folder, weights=False).parsed()


@dataclass(frozen=True)
class HeadFiles:
    """The files of a folder as plain values, which a driver can send to executors that do not reach the folder."""

    folder: str  # for messages
    config: str
    weights: bytes

    @classmethod
    def read(cls, folder: Path, weights: bool = True) -> HeadFiles:
        """The files; without `weights` the configuration alone.

        Raises:
            ModelError: one of them is missing or cannot be read.
        """
        found = []
        for name in (CONFIG, *([WEIGHTS] if weights else [])):
            try:
                found.append((folder / name).read_bytes())
            except FileNotFoundError:
                raise ModelError(f"{folder} has no {name}", "name a folder that `tgq train-attributes` wrote") from None
            except OSError as error:
                raise ModelError(f"{folder / name} cannot be read ({error.strerror})", "check its permissions") from None
        return cls(str(folder), found[0].decode(errors="replace"), found[1] if weights else b"")

    def parsed(self) -> HeadsConfig:
        """The configuration.

        Raises:
            ModelError: it is not one of this version.
        """
        file = Path(self.folder, CONFIG)
        try:
            read = json.loads(self.config)
            if read["format"] != FORMAT:
                raise ModelError(f"{file} has format {read['format']}, this version reads {FORMAT}", "run `tgq train-attributes` again")
            plain = {name: read[name] for name in ("vision", "text", "image_width", "text_width", "temperatures", "thresholds")}
            return HeadsConfig(vocabulary=Vocabulary.from_json(read), **plain)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{file} cannot be read ({type(error).__name__}: {error})", "copy the folder again") from None


@dataclass(frozen=True)
class Said:
    """What the heads answer for one item and key."""

    key: str
    value: str  # the most likely value
    score: float  # its calibrated probability
    is_said: bool  # the score reaches the threshold


class AttributeHeads(nn.Module):
    """One linear map from standardised features to the logits of all keys, each with its values and OTHER."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: HeadsConfig):
        super().__init__()
        self.config = config
        self.keys = tuple(config.vocabulary.values)
        sizes = [len(config.vocabulary.values[key]) + 1 for key in self.keys]
        ends = np.cumsum([0, *sizes]).tolist()
        self.slices = {key: slice(a, b) for key, a, b in zip(self.keys, ends[:-1], ends[1:], strict=True)}
        width = config.image_width + config.text_width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.linear, self.silence = nn.Linear(width + 2, ends[-1]), nn.Linear(width + 2, len(self.keys))
        for parameter in (*self.linear.parameters(), *self.silence.parameters()):
            nn.init.zeros_(parameter)

    def inputs(self, features: ItemFeatures) -> Tensor:
        """Standardised features `[N, Dg + Dp + 2]`; zeros for a missing side, and last whether the item has a picture and a text."""
        image, text = torch.from_numpy(features.image), torch.from_numpy(features.text)
        there = torch.stack([image.abs().sum(1) > 0, text.abs().sum(1) > 0], 1).float()
        both = (torch.cat([image, text], 1) - self.mean) / self.scale
        mask = there.repeat_interleave(torch.tensor([image.shape[1], text.shape[1]]), 1)
        return torch.cat([both * mask, there], 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `[N, C]` of all keys side by side, not calibrated; `slices` says where each key stands."""
        logits: Tensor = self.linear(inputs)
        return logits

    @torch.no_grad()
    def logits(self, features: ItemFeatures) -> Tensor:
        """Logits `[N, C]` of items."""
        return self.scored(features)[0]

    @torch.no_grad()
    def scored(self, features: ItemFeatures) -> tuple[Tensor, Tensor]:
        """Logits `[N, C]`, and `[N, K]` the logarithm of the factor by which the thresholds of the keys are higher for an item: 0 unless reinforced."""
        parts = [self.inputs(features[at : at + CHUNK]) for at in range(0, len(features), CHUNK)] or [torch.zeros(0, self.linear.in_features)]
        return torch.cat([self(part) for part in parts]), torch.cat([self.silence(part) for part in parts])

    def probabilities(self, logits: Tensor, key: str) -> Tensor:
        """Calibrated probabilities `[N, V + 1]` of a key's values and of OTHER, from the logits of all keys."""
        return (logits[:, self.slices[key]] / self.config.temperatures.get(key, 1.0)).softmax(1)

    def predict(self, features: ItemFeatures, asked: Sequence[Sequence[str]], threshold: float | None = None) -> list[list[Said]]:
        """For each item an answer per asked key, in order.

        Args:
            asked: keys of the vocabulary, for each item.
            threshold: for all keys in place of their own, also for one that is never said otherwise.
        """
        logits, silence = self.scored(features)
        best = {}
        for key in {key for keys in asked for key in keys}:
            score, at = self.probabilities(logits, key)[:, :-1].max(1)
            best[key] = list(zip(score.tolist(), at.tolist(), silence[:, self.keys.index(key)].tolist(), strict=True))
        return [[self._said(key, best[key][row], threshold) for key in keys] for row, keys in enumerate(asked)]

    def _said(self, key: str, best: tuple[float, int, float], threshold: float | None) -> Said:
        score, at, silence = best
        own = self.config.thresholds.get(key)
        least = threshold if threshold is not None else None if own is None else own * math.exp(silence)
        return Said(key, self.config.vocabulary.values[key][at], score, least is not None and score >= least)

    @property
    def version(self) -> str:
        """16 hex digits over the configuration and the weights."""
        digest = hashlib.sha256(json.dumps(self.config.as_json(), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.detach().float().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def with_calibration(self, temperatures: Mapping[str, float], thresholds: Mapping[str, float | None]) -> AttributeHeads:
        """The same weights with these temperatures and thresholds."""
        made = AttributeHeads(replace(self.config, temperatures=temperatures, thresholds=thresholds))
        made.load_state_dict(self.state_dict())
        return made.eval()

    def save(self, folder: Path) -> None:
        """Write the files of the folder, the configuration last, so that half a folder is none."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, folder / WEIGHTS, {"format": "pt"})
        (folder / WEIGHTS).chmod(0o644)  # safetensors makes the file private to its owner, but workers may run as another user
        partial = folder / f"{CONFIG}.partial"
        partial.write_text(json.dumps(self.config.as_json(), indent=1, ensure_ascii=False) + "\n")
        partial.replace(folder / CONFIG)

    @classmethod
    def load(cls, folder: Path) -> AttributeHeads:
        """Heads that `save` wrote, in eval mode.

        Raises:
            ModelError: the folder is missing, incomplete or broken.
        """
        return cls.of(HeadFiles.read(folder))

    @classmethod
    def of(cls, files: HeadFiles) -> AttributeHeads:
        """Heads from their files. Raises as `load`."""
        made = cls(files.parsed())
        try:
            made.load_state_dict(load(files.weights))
        except Exception as error:
            found = f"{Path(files.folder, WEIGHTS)} cannot be read ({' '.join(str(error).split())[:200]})"
            raise ModelError(found, "copy the folder again") from None
        return made.eval()


def heads_folder(name: str) -> Path:
    """The folder that a setting names; `default` is the bundled one, unless there is a folder of that name."""
    return BUNDLED if name == "default" and not Path(name).is_dir() else Path(name)


def need_towers(config: HeadsConfig, vision: str, text: str) -> None:
    """Check that an encoder has the towers whose features the heads read.

    Args:
        vision, text: the towers' fingerprints.

    Raises:
        ModelError: it has others.
    """
    if (config.vision, config.text) != (vision, text):
        raise ModelError("the attribute heads were trained on the features of other towers than the encoder's", "run `tgq train-attributes` with this encoder")
