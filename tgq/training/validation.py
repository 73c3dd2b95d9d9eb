"""How good an encoder is on held-out groups during training, and what the distillation's teacher says of each row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from tgq.encoder.layers.heads import LightHead
from tgq.encoder.model import TGQFormer
from tgq.training.config import TrainConfig
from tgq.training.data.batches import Batch, Chunk
from tgq.training.data.casting import Casting
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.split import split_of
from tgq.training.loss.ranking import catalog_mrr

CHUNK = 256


def validation_rows(rows: TrainingSet, config: TrainConfig) -> np.ndarray:
    """`[R]` bool: the rows that are held out for validation, selected by a hash of their group."""
    return np.array([split_of(f"{group}:validation", config.validation_share) == "test" for group in rows.group], bool)


class Validation:
    """Mean reciprocal rank of held-out rows among all rows of their catalog, averaged over catalogs.

    With composed scenes it is the mean of two such figures, weighted by `scene_share`: of the pictures as they are, and of every
    picture in a scene. The scenes are the same at each call. Cost: one or two passes of the encoder over all rows.
    """

    def __init__(self, rows: TrainingSet, held_out: np.ndarray, config: TrainConfig):
        self.rows, self.held_out, self.config = rows, held_out, config
        self.casting = Casting(rows, 1.0, config.scene_same_category) if config.scene_share else None

    def __call__(self, encoder: TGQFormer) -> dict[str, float]:
        """`validation_mrr`; with scenes also its parts, `validation_mrr_pictures` and `validation_mrr_scenes`."""
        pictures = self._mrr(embed(encoder, self.rows))
        if self.casting is None:
            return {"validation_mrr": pictures}
        scenes, share = self._mrr(embed(encoder, self.rows, self.casting, self.config.seed)), self.config.scene_share
        return {"validation_mrr": (1 - share) * pictures + share * scenes, "validation_mrr_pictures": pictures, "validation_mrr_scenes": scenes}

    def _mrr(self, vectors: np.ndarray) -> float:
        return catalog_mrr(vectors.__getitem__, self.rows, self.held_out)


@torch.no_grad()
def embed(encoder: TGQFormer, rows: TrainingSet, casting: Casting | None = None, seed: int = 0) -> np.ndarray:
    """Embeddings `[R, De]` of all rows, from their cached tower features; leaves the encoder in eval mode.

    Args:
        casting: shows the pictures in composed scenes, as far as it casts any; None: as they are.
        seed: of the scenes.
    """
    encoder.eval()
    device = encoder.null_image.device
    chunks = (chunk.to(device).with_own_logits(encoder) for chunk in chunks_of(rows, casting, seed))
    return np.concatenate([encoder(chunk.features).embedding.cpu().numpy() for chunk in chunks])


def chunks_of(rows: TrainingSet, casting: Casting | None, seed: int) -> Iterator[Chunk]:
    """All rows in chunks, on CPU. Arguments as for `embed`."""
    items, none = np.arange(len(rows)), np.zeros(len(rows), bool)
    scene, cast = casting.draw(items, np.random.default_rng(seed)) if casting else (None, None)
    no_pairs = np.zeros((0, 0), bool)
    batch = Batch(rows, np.zeros((len(rows), 0), np.float32), items, np.zeros(len(rows), int), items, none, none, no_pairs, no_pairs, None, CHUNK, scene, cast)
    return (batch.chunk(at) for at in range(len(batch.sizes)))


def teacher_embeddings(encoder: TGQFormer, rows: TrainingSet) -> np.ndarray:
    """What the distillation teaches of each row, `[R, T]`, unit length, from its undisturbed picture and metadata.

    With a light head it is the encoder's embedding at initialisation, with another head the towers' pooled features side by side.
    """
    if isinstance(encoder.head, LightHead):
        return embed(encoder, rows)
    image = rows.image[np.maximum(rows.image_index, 0)] * (rows.image_index >= 0)[:, None]
    return _unit(np.concatenate([_unit(image), _unit(rows.text[rows.metadata_index[:, 0]])], axis=1)).astype(np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
