"""The refiner that the settings choose: checked on the driver, built in each task with its share of the run's limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tgq.enrichment.generators import GeneratorPlan
from tgq.refinement.loop import ModelRefiner
from tgq.refinement.refiner import Refiner
from tgq.refinement.rules import RuleRefiner
from tgq.settings.sections import Settings

RULES_CHUNK = 1000  # items that are refined together
RULES_TASK = 5000  # items of a task


@dataclass(frozen=True)
class RefinerPlan(GeneratorPlan):
    """How to build the refiner."""

    @classmethod
    def of(cls, settings: Settings) -> RefinerPlan:
        """The plan for these settings."""
        return cls(settings.enrich.text, settings.encoder.dtype)

    @property
    def uses_torch(self) -> bool:
        """Whether a task loads a model."""
        return self.text.refiner == "model" and super().uses_torch

    @property
    def uses_endpoint(self) -> bool:
        """Whether a task asks an endpoint."""
        return self.text.refiner == "model" and super().uses_endpoint

    @property
    def sees_pictures(self) -> bool:
        """Whether a title depends on the item's picture."""
        return self.text.refiner == "model" and super().sees_pictures

    @property
    def chunk(self) -> int:
        """Items that a task refines together."""
        return RULES_CHUNK if self.text.refiner == "rules" else super().chunk

    def slices_of(self, items: int) -> int:
        """Slices, each with a commit, for so many items: one for rules."""
        return 1 if self.text.refiner == "rules" else super().slices_of(items)

    def tasks_of(self, items: int, cores: int) -> int:
        """Tasks for so many items on so many cores."""
        if self.text.refiner == "rules":
            return max(1, min(4 * cores, math.ceil(items / RULES_TASK)))
        return super().tasks_of(items, cores)

    def build(self, device: str = "auto") -> Refiner:
        """The refiner of one task; on a driver it is built for its version alone, and loads nothing."""
        if self.text.refiner == "rules":
            return RuleRefiner()
        return ModelRefiner(self.generator(device), self.text.rounds, self.text.longest, self.sees_pictures)
