"""Settings of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tgq.training.initialisation import InitialisationConfig

BASE_RATES = (3e-5, 3e-4)


@dataclass(frozen=True)
class TrainConfig(InitialisationConfig):
    """Settings of a training. All random draws follow from `seed`."""

    steps: int = 200  # at most so many batches
    pairs: int = 192  # positive pairs in a batch; each query has the other pairs' positives as negatives
    hard: int = 0  # hard negatives per query, from its neighbours under the last published model
    chunk: int = 96  # items that go through the encoder at once; memory depends on the chunk, not on the batch
    regather: bool = False  # recompute a chunk's activations for its gradients (GradCache): less memory, a third more time
    precision: str = "auto"  # of the encoder's passes: float32 or bfloat16; auto: bfloat16 on a GPU that supports it
    lr: float = 1e-4  # peak learning rate of connector, gates and the head apart from its linear base
    base_lr: float = 1e-4  # peak learning rate of the head's linear base, which is initialised in closed form
    base_steps: int = 0  # batches that train the linear base alone, before all others, on pooled features; cheap, and not counted in `steps`
    base_pairs: int = 400  # positive pairs in such a batch
    base_steps_lr: float | None = None  # peak learning rate of these steps; None: the one of BASE_RATES with the best MRR on held-out groups
    base_temperature: float = 0.05  # of their InfoNCE
    base_dropout: float = 0.2  # share of the pooled features that they leave out at random
    base_scenes: int = 3  # scenes of each item that they see; none if scene_share is 0
    weight_decay: float = 0.02  # of AdamW
    warmup: float = 0.1  # share of the steps
    temperature: float = 0.07  # initial value; learned
    max_scale: float = 50.0  # upper limit of the learned inverse temperature
    redundancy_weight: float = 0.02  # of L_rr
    alignment_weight: float = 0.1  # of the image-title contrast, which learns the space of S_title
    relation_weight: float = 20.0  # of the distillation: cosines of disturbed items as those of the undisturbed ones under the initial encoder
    restoration_weight: float = 0.0  # light head: of the distance between a disturbed item's embedding and the undisturbed one's under the initial encoder
    scene_share: float = 0.0  # share of a batch's items whose image is replaced by a composed scene with other products; needs a CNN tower
    scene_same_category: float = 0.0  # share of the other products in a scene that are of the item's category, as far as there are any
    attention_weight: float = 0.5  # of the attention loss, which asks the light head to attend to the item of a composed scene
    agcl: bool = False  # InfoNCE weighs pairs by how alike the attributes of both items are (AFMRL)
    agcl_threshold: float = 0.9  # with agcl: similarity to the positive's attributes, 0 to 1, above which an item is no negative; 1: none
    gate_weight: float = 0.0  # of the gate loss: the metadata gate is lower for another item's metadata, the exploratory one for composed scenes
    drop_image: float = 0.05  # share of training items whose image is dropped
    drop_text: float = 0.1  # share of training items whose metadata is dropped
    wrong_text: float = 0.0  # share of training items that are shown with the metadata of another item
    validation_share: float = 0.15  # of the training groups
    evaluate_every: int = 50  # steps
    patience: int = 5  # evaluations without improvement before training stops


def learning_rate_factor(step: int, steps: int, warmup: float) -> float:
    """Factor of the peak learning rate at a step (from 1): linear warm-up, then cosine decay (Loshchilov, Hutter 2017), in [0, 1]."""
    warm = max(1, round(warmup * steps))
    rest = (step - 1 - warm) / max(1, steps - warm)
    return step / warm if step <= warm else 0.5 * (1 + math.cos(math.pi * rest))
