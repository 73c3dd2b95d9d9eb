"""One trial: trains a design with a seed on the train groups of some catalogs, and ranks the test groups of others."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch

from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import TGQFormer
from tgq.encoder.towers import hub
from tgq.training.data.casting import Casting
from tgq.training.data.dataset import TrainingSet
from tgq.training.initialisation import InitialisationConfig, initialise
from tgq.training.loss.ranking import first_ranks
from tgq.training.trainer import TrainConfig, train
from tgq.training.validation import embed, validation_rows


@dataclass(frozen=True)
class Budget:
    """The size of each trial, and the number of seeds."""

    name: str
    seeds: int
    steps: int
    pairs: int
    evaluate_every: int
    training: dict = field(default_factory=dict)  # further fields of TrainConfig, for all designs

    def changed(self, seeds: int | None, steps: int | None, pairs: int | None) -> Budget:
        """The budget with another number of seeds, steps or pairs. Trials of other steps or pairs have a name, and thus files, of their own."""
        budget = replace(self, seeds=seeds or self.seeds, steps=steps or self.steps, pairs=pairs or self.pairs)
        if (budget.steps, budget.pairs) == (self.steps, self.pairs):
            return budget
        return replace(budget, name=f"{self.name}-{budget.steps}-steps-{budget.pairs}-pairs", evaluate_every=min(self.evaluate_every, budget.steps))


BUDGETS = {
    "quick": Budget("quick", seeds=1, steps=20, pairs=64, evaluate_every=20),
    "full": Budget("full", seeds=5, steps=200, pairs=192, evaluate_every=25),
    "scenes": Budget("scenes", seeds=5, steps=400, pairs=128, evaluate_every=50, training={"scene_share": 0.5, "scene_same_category": 0.3}),
}


@dataclass(frozen=True)
class Design:
    """A design in the comparison: a connector, or TGQ-Former without one of its parts."""

    name: str
    encoder: dict = field(default_factory=dict)  # fields of EncoderConfig
    training: dict = field(default_factory=dict)  # fields of TrainConfig
    role: str = "rival"  # rival connector, fusion (no connector), ladder, ours, ablation
    quick: bool = False  # part of the quick budget too

    @property
    def left_out(self) -> str:
        """Why the design runs only if it is named, or an empty string."""
        llm = self.encoder.get("llm", "")
        if llm and not hub.is_available(llm):
            return f"the language model {llm} is not installed: {hub.BUNDLED[llm].install}"
        return "without a GPU its trials take hours to days" if llm and not torch.cuda.is_available() else ""

    def with_input(self, tower_input: dict[str, int]) -> Design:
        """The same design with these `image_size` and `closeups` of EncoderConfig."""
        return replace(self, encoder={**self.encoder, **tower_input})


# The activations of an item of 85 tokens take 0.2 GB, so only a small chunk's are kept. The head starts at random weights, not in closed
# form, and needs larger steps.
LLM_TRAINING = {"chunk": 16, "regather": True, "lr": 1e-3}

DESIGNS = {
    d.name: d
    for d in (
        *(Design(name, {"connector": name}, role="fusion", quick=name == "concat_linear") for name in ("concat_linear", "clip_mean", "moe_bilinear")),
        *(Design(name, {"connector": name}, quick=name == "qformer") for name in ("mlp", "perceiver", "qformer", "instructblip")),
        *(Design(name, {"connector": name}, role="ladder") for name in ("anchored_only", "hybrid_nogate", "hybrid_gates")),
        Design("tgq", {"connector": "tgq"}, role="ours", quick=True),
        Design("tgq without anchor (as published)", {"connector": "tgq", "anchor": False}, role="ablation"),
        Design("tgq, vocabulary only", {"connector": "tgq"}, {"correlation": False}, "ablation"),
        Design("tgq, correlation only", {"connector": "tgq"}, {"vocabulary": False}, "ablation"),
        Design("tgq, close-ups unused", {"connector": "tgq"}, {"closeup_share": 0.0}, "ablation"),
        Design("tgq, attribute-guided", {"connector": "tgq"}, {"agcl": True}, "ablation"),
        Design("tgq, base trained", {"connector": "tgq"}, {"base_steps": 400}, "ablation"),
        Design("tgq, SmolLM2 head", {"connector": "tgq", "head": "llm", "llm": "smollm2-135m-instruct"}, LLM_TRAINING, "ablation"),
        Design("tgq, initialisation only", {"connector": "tgq"}, {"steps": 1, "lr": 0.0, "base_lr": 0.0}, "ablation"),
    )
}


def untrained(design: Design) -> TGQFormer:
    """The design with random weights."""
    return TGQFormer(EncoderConfig(**design.encoder))


@dataclass(frozen=True)
class Initialisation:
    """The initialisation that designs of one kind share. It does not depend on the seed, and takes most of the time of a short trial."""

    state: dict[str, torch.Tensor]
    rows: TrainingSet  # with attention logits; of all views if the budget draws each row more than once on average
    tests: dict[str, TrainingSet]  # with attention logits
    chosen: dict[str, float]  # values that the initialisation chose


class Trials:
    """Trials on one training set, evaluated on test sets by name."""

    def __init__(self, rows: TrainingSet, tests: dict[str, TrainingSet], budget: Budget):
        self.rows, self.tests, self.budget = rows, tests, budget
        self.initialisations: dict[tuple, Initialisation] = {}

    def run(self, design: Design, seed: int) -> tuple[TGQFormer, dict[str, np.ndarray], dict[str, float]]:
        """The trained encoder, its ranks by test set, and figures of its training and initialisation."""
        b, began = self.budget, time.perf_counter()
        options = TrainConfig(steps=b.steps, pairs=b.pairs, evaluate_every=b.evaluate_every, patience=10**6)
        options = replace(options, **(b.training | design.training))
        torch.manual_seed(seed)
        encoder = untrained(design)
        shared = self._initialisation(encoder, options)
        encoder.load_state_dict(shared.state, strict=False)
        history = train(encoder, shared.rows, replace(options, seed=seed), initialised=True)
        best = max(history, key=lambda values: values["validation_mrr"])
        found = {name: ranks(encoder, rows) for name, rows in shared.tests.items()}
        return encoder, found, {"seconds": time.perf_counter() - began, "best_step": best["step"], "validation_mrr": best["validation_mrr"],
                                "started_at": history[0]["validation_mrr"], **shared.chosen}  # fmt: skip

    def _initialisation(self, encoder: TGQFormer, options: TrainConfig) -> Initialisation:
        settings = tuple(getattr(options, f.name) for f in fields(InitialisationConfig))
        parts = encoder.anchor is not None, encoder.reliability is not None, encoder.connector.has_tokens
        scenes = options.scene_share, options.scene_same_category
        key = (*parts, type(getattr(encoder.head, "base", None)).__name__, settings, scenes)
        if key not in self.initialisations:
            learning = self.rows.subset(np.flatnonzero(~validation_rows(self.rows, options)))
            chosen = initialise(encoder, Casting(learning, *scenes).applied(options.seed) if options.scene_share else learning, options)
            initialised = ("anchor.", "alignment.", "reliability.", "head.base.", "head.pooling.share")
            state = {name: value.clone() for name, value in encoder.own_state().items() if name.startswith(initialised)}
            tests = {name: rows.with_attention_logits(encoder, views=1) for name, rows in self.tests.items()}
            often = 2 * self.budget.seeds * options.steps * options.pairs > self.rows.metadata_index.size
            self.initialisations[key] = Initialisation(state, self.rows.with_attention_logits(encoder, views=None if often else 1), tests, chosen)
        return self.initialisations[key]


def ranks(encoder: TGQFormer, rows: TrainingSet) -> np.ndarray:
    """`[R]` for each item the rank of its first positive in the pool of all rows; nan if it has no positive."""
    vectors, parts = embed(encoder, rows), np.array_split(np.arange(len(rows)), max(1, len(rows) // 500))
    return np.concatenate([first_ranks(vectors, rows, part) for part in parts])


def encoder_folder(regime: str, catalog: str, budget: Budget, work: Path) -> Path:
    """The folder of the TGQ-Former that was trained with the first seed, for the plots."""
    return work / "encoders" / budget.name / regime / catalog


def ranks_file(regime: str, catalog: str, design: Design, seed: int, budget: Budget, work: Path) -> Path:
    """The file with the ranks of a trial on a catalog."""
    return work / "trials" / budget.name / regime / catalog / f"{re.sub('[^a-z_]+', '-', design.name)}-{seed}.npz"
