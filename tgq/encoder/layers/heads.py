"""Heads: they map connector tokens and pooled tower features to one embedding per item."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tgq.encoder.features import Features
from tgq.encoder.layers.attention import GuidedPooling
from tgq.encoder.layers.fusion import PlainFusion
from tgq.encoder.layers.linear import Linear
from tgq.encoder.towers import hub
from tgq.encoder.towers.loading import load_model, load_tokenizer
from tgq.errors import ModelError

GROUP = 32  # items in a pass of the language model; they are padded to the longest of them


@dataclass(frozen=True)
class Streams:
    """Output of the connector and the gates for B items: metadata-anchored and exploratory stream."""

    projected: Tensor  # [B, N, D] visual tokens at the connector's width
    anchored: Tensor  # [B, n, D] tokens, scaled by the gate
    exploratory: Tensor  # [B, m, D] tokens, scaled by the gate
    gate_metadata: Tensor  # [B, D] in (0, 2)
    gate_exploratory: Tensor  # [B, D] in (0, 2)
    attention_logits: Tensor  # [B, N] of the anchor, times the trust in the metadata
    trust: Tensor  # [B] in the metadata, 0 to 1

    @classmethod
    def untrained(cls, attention_logits: Tensor, width: int) -> Streams:
        """Streams of a connector before training: tokens of zero and gates of one, so that only the anchor's logits `[B, N]`
        affect the pooling."""
        items, token = len(attention_logits), attention_logits.new_zeros(len(attention_logits), 1, width)
        gate = attention_logits.new_ones(items, width)
        trust = attention_logits.new_ones(items)
        return cls(attention_logits.new_zeros(*attention_logits.shape, width), token, token[:, :0], gate, gate, attention_logits, trust)

    @property
    def tokens(self) -> Tensor:
        """The tokens of both streams, `[B, n + m, D]`."""
        return torch.cat([self.anchored, self.exploratory], dim=1)


class LightHead(nn.Module):
    """Linear fusion of f_txt and of an f_img that the connector has shifted; no language model.

    The anchor's logits and the gated tokens are used as attention over the picture: they shift f_img towards the visual tokens
    that they attend to (`GuidedPooling`, ours). Without an anchor the shift starts at exactly zero, so an untrained light head
    equals its linear base. The paper's head also maps the connector tokens into the embedding. This head does not, because
    such a map fits the catalogs it is trained on and loses quality on other catalogs.
    """

    def __init__(self, config, image_width: int, pooled_width: int, text_width: int, closeups: int, fusion: type[PlainFusion] = PlainFusion):
        super().__init__()
        self.base = fusion(pooled_width, text_width, config.dim, config.image_root, config.imputation)
        self.pooling = GuidedPooling(config.width, config.pooling_heads, closeups)
        same = image_width == pooled_width  # the pooled feature of a CLIP-like pair is in another space than its tokens
        self.shift = nn.Identity() if same else Linear(image_width, pooled_width, bias=False)

    def forward(self, features: Features, streams: Streams) -> Tensor:
        """Embeddings `[B, De]`, not normalised."""
        f = features
        return self.base(self.shifted_image(f, streams), f.has_image, f.text, f.has_text, streams.trust)

    def attention(self, s: Streams) -> Tensor | None:
        """Pooling weights `[B, heads, N]` of the first stream that has tokens, by default the metadata-anchored one; None without any."""
        first = s.anchored if s.anchored.shape[1] else s.exploratory
        logits = s.attention_logits if s.anchored.shape[1] else torch.zeros_like(s.attention_logits)
        return self.pooling.weights(s.projected, first, logits) if first.shape[1] else None

    def shifted_image(self, features: Features, s: Streams) -> Tensor:
        """f_img plus the shift, `[B, Dg]`."""
        no_logits = torch.zeros_like(s.attention_logits)
        streams = ((s.anchored, s.attention_logits, s.gate_metadata), (s.exploratory, no_logits, s.gate_exploratory))
        return features.image + self.shift(self.pooling(features.image_tokens, s.projected, streams))


class LLMHead(nn.Module):
    """A language model with LoRA over connector tokens and metadata tokens; its last hidden state is mapped to the embedding.

    The sequence is `[connector tokens, metadata tokens, end token]`. The model is causal and the padding is on the right, so
    neither padding nor other items of the batch affect the state at the end token. The base weights stay frozen and are not
    saved with the encoder. Cost: a pass of the language model over B * (n + text length) tokens.

    Raises:
        ModelError: the configuration names no language model, or its tokenizer has no end token.
    """

    def __init__(self, config, relative_to: Path | None = None):
        super().__init__()
        from peft import LoraConfig, get_peft_model
        if not config.llm:
            raise ModelError("the head is 'llm' but no language model is set", "set llm to a model folder or hub name")
        self.folder, self.text_length = hub.resolve(config.llm, relative_to), config.text_length
        self.tokenizer, model = load_tokenizer(self.folder), load_model(self.folder)
        if self.tokenizer.eos_token_id is None:
            raise ModelError(f"the tokenizer of {self.folder} has no end token", "set eos_token in its configuration")
        lora = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear")
        self.llm = get_peft_model(model, lora)
        self.visual_in = Linear(config.width, model.config.hidden_size)
        self.out = Linear(model.config.hidden_size, config.dim)

    def forward(self, features: Features, streams: Streams) -> Tensor:
        """Embeddings `[B, De]`, not normalised."""
        visual, texts = self.visual_in(streams.tokens), self._tokenize(features.metadata)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # so that a short text is not padded to the longest of the batch
        parts = [order[first : first + GROUP] for first in range(0, len(order), GROUP)]
        states = torch.cat([self._end_states(visual[part], [texts[i] for i in part]) for part in parts])
        return self.out(states.to(self.out.weight.dtype))[torch.tensor(order).argsort()]

    def _end_states(self, visual: Tensor, texts: list[list[int]]) -> Tensor:
        """The states `[B, H]` at the end tokens of B texts behind the connector tokens `[B, n, H]`."""
        lengths = torch.tensor([len(text) for text in texts])
        ids = nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True, padding_value=self.tokenizer.eos_token_id)
        ids, mask = ids.to(visual.device), (torch.arange(ids.shape[1]) < lengths[:, None]).long().to(visual.device)
        embeds = torch.cat([visual, self.llm.get_input_embeddings()(ids).to(visual.dtype)], dim=1)
        mask = torch.cat([mask.new_ones(visual.shape[:2]), mask], dim=1)
        states = self.llm(inputs_embeds=embeds, attention_mask=mask, use_cache=False).last_hidden_state
        return states[torch.arange(len(states)), mask.sum(1) - 1]

    def _tokenize(self, texts: tuple[str, ...]) -> list[list[int]]:
        """The tokens of each text, then the end token."""
        rows = self.tokenizer(list(texts), truncation=True, max_length=self.text_length, add_special_tokens=False)["input_ids"]
        return [[*row, self.tokenizer.eos_token_id] for row in rows]

    def merge(self) -> None:
        """Fold the adapters into the base weights. Inference is faster, but the encoder can no longer be trained or saved."""
        self.llm = self.llm.merge_and_unload()
