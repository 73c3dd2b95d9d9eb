"""Heads: from the connector's tokens to one unit vector per item."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tgq.encoder.attention import GuidedPooling
from tgq.encoder.features import Features
from tgq.encoder.fusion import PlainFusion
from tgq.encoder.towers import hub
from tgq.encoder.towers.loading import load_model, load_tokenizer
from tgq.errors import ModelError


@dataclass(frozen=True)
class Streams:
    """What the connector and the gates say of B items."""

    projected: Tensor  # [B, N, D] the picture as the connector saw it
    anchored: Tensor  # [B, n, D] modulated tokens
    exploratory: Tensor  # [B, m, D]
    gate_metadata: Tensor  # [B, D] in (0, 2)
    gate_exploratory: Tensor  # [B, D]
    where: Tensor  # [B, N] the anchor's logits

    @classmethod
    def untrained(cls, where: Tensor, width: int) -> Streams:
        """Those of a connector that says nothing yet: only the anchor's logits `[B, N]` have a say."""
        items, nothing = len(where), where.new_zeros(len(where), 1, width)
        gate = where.new_ones(items, width)
        return cls(where.new_zeros(*where.shape, width), nothing, nothing[:, :0], gate, gate, where)

    @property
    def tokens(self) -> Tensor:
        """`[B, n + m, D]`."""
        return torch.cat([self.anchored, self.exploratory], dim=1)


class LightHead(nn.Module):
    """Plain fusion of f_txt and of an f_img that the connector has moved; no language model.

    Modulated tokens and anchor say where to look: they shift f_img towards the grid cells that they point at
    (`GuidedPooling`, ours). Without an anchor the shift starts at exactly zero, so an untrained light head is its plain
    fusion. The tokens themselves are not mapped into the embedding, as the paper's head does: that fits the catalogs that it is
    trained on, and loses on catalogs that it has not seen.
    """

    def __init__(self, config, image_width: int, pooled_width: int, text_width: int, closeups: int, fusion: type[PlainFusion] = PlainFusion):
        super().__init__()
        self.base = fusion(pooled_width, text_width, config.dim, config.image_root)
        self.pooling = GuidedPooling(config.width, config.pooling_heads, closeups)
        same = image_width == pooled_width  # a pair's pooled feature lives in another space than its tokens
        self.shift = nn.Identity() if same else nn.Linear(image_width, pooled_width, bias=False)

    def forward(self, features: Features, streams: Streams) -> Tensor:
        """`[B, De]`, not normalised."""
        return self.base(self.moved(features, streams), features.has_image, features.text, features.has_text)

    def moved(self, features: Features, s: Streams) -> Tensor:
        """f_img `[B, Dg]` after the shift."""
        nowhere = torch.zeros_like(s.where)
        streams = ((s.anchored, s.where, s.gate_metadata), (s.exploratory, nowhere, s.gate_exploratory))
        return features.image + self.shift(self.pooling(features.image_tokens, s.projected, streams))


class LLMHead(nn.Module):
    """Connector tokens next to metadata tokens in a language model with LoRA; the state at the last one is mapped.

    The sequence is `[visual tokens, metadata tokens, end]`, padded on the right of a causal model, so that neither
    padding nor neighbours in the batch reach the position that is read. Base weights stay frozen and outside of what
    is saved. Cost grows with the LLM's: B * (n + text length) tokens.
    """

    def __init__(self, config, relative_to: Path | None = None):
        super().__init__()
        from peft import LoraConfig, get_peft_model
        if not config.llm:
            raise ModelError("head 'llm' without a language model", "set llm to a model folder or hub name")
        self.folder, self.text_length = hub.resolve(config.llm, relative_to), config.text_length
        self.tokenizer, model = load_tokenizer(self.folder), load_model(self.folder)
        if self.tokenizer.eos_token_id is None:
            raise ModelError(f"the tokenizer of {self.folder} has no end token", "set eos_token in its configuration")
        lora = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear")
        self.llm = get_peft_model(model, lora)
        self.visual_in = nn.Linear(config.width, model.config.hidden_size)
        self.out = nn.Linear(model.config.hidden_size, config.dim)

    def forward(self, features: Features, streams: Streams) -> Tensor:
        """Modulated tokens and the metadata texts to `[B, De]`, not normalised."""
        visual = self.visual_in(streams.tokens)
        ids, mask = self._tokenize(features.metadata, visual.device)
        embeds = torch.cat([visual, self.llm.get_input_embeddings()(ids).to(visual.dtype)], dim=1)
        mask = torch.cat([mask.new_ones(visual.shape[:2]), mask], dim=1)
        states = self.llm(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
        return self.out(states[torch.arange(len(states)), mask.sum(1) - 1].to(self.out.weight.dtype))

    def _tokenize(self, texts: tuple[str, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        end = self.tokenizer.eos_token_id
        rows = [self.tokenizer(t, truncation=True, max_length=self.text_length, add_special_tokens=False)["input_ids"]
                for t in texts]
        rows = [torch.tensor([*row, end]) for row in rows]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=end)
        lengths = torch.tensor([len(row) for row in rows])
        return ids.to(device), (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(device)

    def merge(self) -> None:
        """Fold the adapters into the base weights: faster, and for inference only."""
        self.llm = self.llm.merge_and_unload()
