"""The query tower: a text checkpoint and a linear map into the space of the item embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tgq.encoder.config import EncoderConfig
from tgq.encoder.layers.linear import Linear
from tgq.encoder.text import normalise
from tgq.encoder.towers import hub
from tgq.encoder.towers.text import TextTower
from tgq.errors import ModelError
from tgq.query_tower.batching import by_length
from tgq.query_tower.config import CONFIG, WEIGHTS, QueryTowerConfig


class QueryTower(nn.Module):
    """Maps queries to unit vectors that are compared with item embeddings by inner product: `W u(f(text) - mean)` at unit length.

    f is the checkpoint's pooled feature and u(x) = x at unit length. The lower layers of the checkpoint are frozen; the top
    `trained_layers` are fine-tuned and belong to the tower.

    Args:
        config: see QueryTowerConfig.
        relative_to: the folder that a relative checkpoint path starts at.

    Raises:
        ModelError: the checkpoint cannot be loaded, or has fewer layers than are to be trained.
    """

    mean: Tensor

    def __init__(self, config: QueryTowerConfig, relative_to: Path | None = None):
        super().__init__()
        self.config, self.relative_to = config, relative_to
        self.text = TextTower(config.text, config.text_length, relative_to)
        layers = _layers(self.text.model)
        if config.trained_layers > len(layers):
            raise ModelError(f"the text checkpoint {config.text} has {len(layers)} layers", f"train at most so many, not {config.trained_layers}")
        self._top = layers[len(layers) - config.trained_layers :]
        for layer in self._top:
            layer.requires_grad_(True)
        self.register_buffer("mean", torch.zeros(self.text.pooled_width))
        self.project = Linear(self.text.pooled_width, config.dim, bias=False)

    @property
    def dim(self) -> int:
        """De, the width of its vectors."""
        return self.config.dim

    def forward(self, pooled: Tensor) -> Tensor:
        """Unit vectors `[B, De]` of pooled text features `[B, Dp]`."""
        return F.normalize(self.project(F.normalize(pooled - self.mean, dim=-1)), dim=-1)

    def pooled(self, texts: Sequence[str]) -> Tensor:
        """Pooled text features `[B, Dp]`, with gradients of the trained layers where gradients are on."""
        return self.text.pooled(list(texts))

    @torch.no_grad()
    def encode_queries(self, texts: Sequence[str], batch_size: int = 256) -> np.ndarray:
        """Unit vectors of n queries, float32 `[n, De]`, in their order.

        The texts are encoded by length, so that short ones are not padded to the longest. Cost: a pass of the checkpoint over at most
        `text_length` tokens a query.

        Raises:
            ValueError: a query is empty or blank; with its position.
        """
        if empty := [i for i, text in enumerate(texts) if not text.strip()]:
            raise ValueError(f"query {empty[0]} is empty")
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return by_length(texts, lambda part: self(self.pooled(part)).float().cpu().numpy(), batch_size)

    @torch.no_grad()
    def encode_pooled(self, pooled: np.ndarray) -> np.ndarray:
        """Unit vectors of queries, float32 `[n, De]`, from their pooled features, float32 `[n, Dp]`; see `shared_text_tower`."""
        return self(torch.from_numpy(pooled).to(self.mean.device)).float().cpu().numpy()

    def shared_text_tower(self, folder: Path, config: EncoderConfig) -> TextTower | None:
        """The frozen text tower of the encoder in `folder`, over the weights of this query tower; None if those are others, or were fine-tuned.

        The pooled features of the one are those of the other for texts that both read alike (`reads_as`).
        """
        if self._top or self.text.fixed_length or hub.resolve(config.text, folder).resolve() != self.text.folder.resolve():
            return None
        return self.text.of_length(config.text_length)

    def reads_as(self, frozen: TextTower, texts: Sequence[str]) -> np.ndarray:
        """bool `[n]`: whether it and a frozen tower of the same checkpoint, which reads `normalise(text)`, have the same tokens of each text."""
        most = min(self.text.max_length, frozen.max_length)
        lengths = [len(tokens) for tokens in self.text.tokenizer(list(texts), truncation=True, max_length=most + 1)["input_ids"]]
        return np.array([n <= most and text == normalise(text) for n, text in zip(lengths, texts, strict=True)], bool)

    def own_state(self) -> dict[str, Tensor]:
        """The tower's own weights by name: the map, its mean, and the fine-tuned layers."""
        own = {"mean": self.mean, "project.weight": self.project.weight}
        return own | {f"top.{i}.{name}": value for i, layer in enumerate(self._top) for name, value in layer.state_dict().items()}

    def save(self, folder: str | Path) -> None:
        """Write `config.json` and `model.safetensors`, in float16 if that is exact; the frozen layers are not written."""
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        state = {name: value.detach().float().cpu().contiguous() for name, value in self.own_state().items()}
        halves = {name: value.half() for name, value in state.items()}
        if all(torch.equal(halves[name].float(), value) for name, value in state.items()):
            state = halves
        save_file(state, place / WEIGHTS, {"format": "pt"})
        (place / WEIGHTS).chmod(0o644)  # safetensors makes the file private to its owner, but workers may run as another user
        config = replace(self.config, text=hub.moved(self.config.text, self.relative_to, place))
        (place / CONFIG).write_text(json.dumps(asdict(config), indent=1) + "\n")

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu") -> QueryTower:
        """Load a query tower's folder, in eval mode.

        Raises:
            ModelError: there is no query tower, or its weights are missing, broken or do not fit its configuration.
        """
        place = Path(folder)
        tower = cls(QueryTowerConfig.read(place), relative_to=place)
        if not (place / WEIGHTS).is_file():
            raise ModelError(f"the query tower {place} has no {WEIGHTS}", "train it again, or copy the whole folder")
        try:
            state = load_file(place / WEIGHTS)
        except Exception as error:
            raise ModelError(f"{place / WEIGHTS} cannot be read ({error})", "copy the file again") from None
        tower.load_own_state(state, str(place / WEIGHTS))
        return tower.to(device).eval()

    def load_own_state(self, state: dict[str, Tensor], source: str = "the state") -> None:
        """Take over weights as `own_state` gives them.

        Raises:
            ModelError: they do not fit the configuration. `source` says in the message where they are from.
        """
        wanted = self.own_state()
        shapes, found = ({name: value.shape for name, value in s.items()} for s in (wanted, state))
        if shapes != found:
            wrong = min(name for name in shapes | found if shapes.get(name) != found.get(name))
            raise ModelError(f"{source} does not fit its {CONFIG} at weight '{wrong}'", f"use the {CONFIG} that was saved with these weights")
        with torch.no_grad():
            for name, value in wanted.items():
                value.copy_(state[name])


def _layers(model: nn.Module) -> list[nn.Module]:
    """The layers of a transformer, from the input up: its longest list of modules, whatever the architecture calls it."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])
