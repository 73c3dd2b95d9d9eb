"""The text tower: it maps texts to tokens, their mask and a pooled feature."""

from __future__ import annotations

import copy
import json
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from tgq.encoder.towers import hub
from tgq.encoder.towers.loading import load_tokenizer
from tgq.encoder.towers.tower import Tower, digest_of, drop_modules

CPU_TEXTS = 32  # per forward pass on a CPU
CHARACTERS = 1000  # of a text for each token that is used of it: a tokenizer splits the whole text, whatever its length, before it is cut


class TextTower(Tower):
    """A frozen text encoder: texts to tokens `[B, L, Dt]`, their mask `[B, L]` and a pooled feature `[B, Dp]`.

    Args:
        reference: bundled name, folder or hub name; see `hub.resolve`.
        max_length: L, in tokens; at most the model's number of positions.
        relative_to: the folder that a relative path starts at.

    Raises:
        ModelError: the checkpoint or its tokenizer cannot be loaded.
    """

    def __init__(self, reference: str, max_length: int = 64, relative_to: Path | None = None):
        super().__init__(reference, relative_to)
        self.tokenizer = load_tokenizer(self.folder)
        if self.is_pair:
            drop_modules(self.model, "vision_model", "visual_projection")
        config = getattr(self.model.config, "text_config", self.model.config)
        self.max_length = min(max_length, config.max_position_embeddings)
        self.pooling = _sentence_pooling(self.folder)
        with torch.no_grad():
            tokens, _, pooled = self(["a"])
        self.width, self.pooled_width = tokens.shape[2], pooled.shape[1]

    def of_length(self, max_length: int) -> TextTower:
        """The same tower, with the same weights in memory, that reads at most `max_length` tokens."""
        other = copy.copy(self)
        other.max_length = min(max_length, getattr(self.model.config, "text_config", self.model.config).max_position_embeddings)
        vars(other).pop("fingerprint", None)  # it depends on the length
        return other

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that identify weights, configuration, tokenizer, pooling and maximum length."""
        names = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json")
        files = [hub.sha256_of(self.folder / name) for name in names if (self.folder / name).is_file()]
        return digest_of([self.weights_sha256, *files, str(self.max_length), self.pooling])[:16]

    @torch.no_grad()
    def forward(self, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens `[T, L, Dt]` (zero at padding), bool mask `[T, L]` and pooled feature `[T, Dp]` of T texts.

        An empty text is all zeros and fully masked. The model runs on texts padded to the longest one of a pass, because its cost grows
        with that length. On a CPU texts of similar length share a pass, so a title is not padded to the length of a description. The
        output is always `max_length` long, so it does not depend on the other texts of the call.
        """
        device = next(self.model.parameters()).device
        mask = torch.zeros(len(texts), self.max_length, dtype=torch.bool, device=device)
        present = sorted((i for i, text in enumerate(texts) if text), key=lambda i: len(texts[i]))
        at_once = CPU_TEXTS if device.type == "cpu" else max(1, len(present))
        tokens = pooled = None
        for start in range(0, len(present), at_once):
            part = present[start : start + at_once]
            batch = self._tokenized([texts[i] for i in part])
            hidden, summary = self._run(batch)
            if tokens is None or pooled is None:
                tokens, pooled = hidden.new_zeros(*mask.shape, hidden.shape[2]), summary.new_zeros(len(texts), summary.shape[1])
            unmasked = batch["attention_mask"].bool()
            rows, length = torch.tensor(part, device=device), unmasked.shape[1]
            mask[rows, :length] = unmasked
            tokens[rows, :length] = hidden * unmasked[..., None]
            pooled[rows] = summary
        if tokens is None or pooled is None:
            return torch.zeros(*mask.shape, self.width, device=device), mask, torch.zeros(len(texts), self.pooled_width, device=device)
        return tokens, mask, pooled

    def pooled(self, texts: list[str]) -> Tensor:
        """Pooled features `[T, Dp]` of T texts, none of them empty; with gradients of the weights that require them."""
        return self._run(self._tokenized(texts))[1]

    def pooled_of(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pooled features `[T, Dp]` of T tokenized texts, int64 `[T, L]` each; as `pooled`."""
        return self._run({"input_ids": input_ids, "attention_mask": attention_mask})[1]

    def _tokenized(self, texts: list[str]):
        padding = "max_length" if self.fixed_length else "longest"
        texts = [text[: CHARACTERS * self.max_length] for text in texts]
        batch = self.tokenizer(texts, padding=padding, truncation=True, max_length=self.max_length, return_tensors="pt", return_attention_mask=True)
        return batch.to(next(self.model.parameters()).device)

    @property
    def fixed_length(self) -> bool:
        """Whether all texts are padded to `max_length`: SigLIP was trained so, without an attention mask."""
        return self.model.config.model_type.startswith("siglip")

    def _run(self, batch) -> tuple[Tensor, Tensor]:
        inputs = {k: v for k, v in batch.items() if not (self.fixed_length and k == "attention_mask")}
        if self.is_pair:
            out = self.model.get_text_features(**inputs)
            return out.last_hidden_state, out.pooler_output
        hidden = self.model(**inputs).last_hidden_state
        if self.pooling == "cls":
            return hidden, hidden[:, 0]
        weight = batch["attention_mask"][..., None].to(hidden.dtype)
        return hidden, (hidden * weight).sum(1) / weight.sum(1)


def _sentence_pooling(folder: Path) -> str:
    """The pooling mode of a sentence-transformers folder: 'cls' if its configuration says so, else 'mean'."""
    path = folder / "1_Pooling" / "config.json"
    return "cls" if path.is_file() and json.loads(path.read_text()).get("pooling_mode_cls_token") else "mean"
