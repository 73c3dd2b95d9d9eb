"""Settings of the training of a query tower."""

from __future__ import annotations

from dataclasses import dataclass

from tgq.errors import UsageError

DOMAIN, TEXT, PICTURE, BOTH, FUSION = STAGES = ("domain", "text", "picture", "both", "fusion")


@dataclass(frozen=True)
class QueryTrainConfig:
    """Settings of a training. All random draws follow from `seed`."""

    seed: int = 0  # of all random draws
    stages: str = ",".join(STAGES)  # in this order: domain, text, picture, both, fusion; empty: only the closed-form start
    steps: int = 150  # batches in each stage
    batch: int = 64  # queries in a batch
    judged: int = 8  # judged items of a query in a batch, those of the highest grades first
    hard: int = 4  # of each query's hard negatives in a batch
    others: int = 2048  # random items that are candidates of every query of a batch
    trained_layers: int = 0  # top layers of the text checkpoint that are fine-tuned; 0: only the linear map, which is much faster
    lr: float = 1e-3  # peak learning rate of the linear map, and of a jointly trained item side
    layers_lr: float = 5e-5  # peak learning rate of the fine-tuned layers
    weight_decay: float = 0.01  # of AdamW
    warmup: float = 0.1  # share of a stage's steps
    temperature: float = 0.05  # of the softmax over a batch's candidates
    generated_weight: float = 1.0  # of the loss of generated queries, which every stage but domain adds to that of the judged ones; 0: none
    joint: bool = False  # the fusion stage trains the head's fusion of the items too, which gives a new item model: the next night embeds all items again
    domain_queries: int = 10_000  # generated queries at most
    validation_share: float = 0.15  # of the training queries
    evaluate_every: int = 50  # steps

    @property
    def order(self) -> tuple[str, ...]:
        """The stages by name.

        Raises:
            UsageError: there is no stage of such a name.
        """
        names = tuple(name.strip() for name in self.stages.split(",") if name.strip())
        if unknown := [name for name in names if name not in STAGES]:
            raise UsageError(f"there is no stage '{unknown[0]}'", f"choose from {', '.join(STAGES)}")
        return names
