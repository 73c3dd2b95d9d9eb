"""Settings of a training."""

from __future__ import annotations

from dataclasses import dataclass

from tgq.training.initialisation import InitialisationConfig


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
