"""The source of attributes that the settings choose: checked on the driver, built in each task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tgq.attributes.heads import AttributeHeads, HeadFiles, HeadsConfig, heads_folder, need_towers
from tgq.attributes.source import AttributeSource, HeadSource, ModelSource
from tgq.enrichment.generators import GeneratorPlan
from tgq.errors import ConfigError
from tgq.registry.loading import towers_of
from tgq.registry.selection import model_folder
from tgq.settings.enrich import AttributeSettings
from tgq.settings.sections import Settings
from tgq.storage.paths import absolute

HEADS_CHUNK = 1000  # items that heads judge together
HEADS_TASK = 5000  # items of a task


@dataclass(frozen=True)
class AttributePlan(GeneratorPlan):
    """How to build the source. The files of the heads are read on the driver, so executors need not reach their folder."""

    attributes: AttributeSettings = AttributeSettings()
    files: HeadFiles | None = None

    @classmethod
    def of(cls, settings: Settings) -> AttributePlan | None:
        """The plan for these settings; None if no attributes are to be generated.

        Raises:
            ModelError: the folder of the heads is missing or broken.
        """
        attributes = settings.enrich.attributes
        if attributes.source == "none":
            return None
        files = HeadFiles.read(Path(absolute(str(heads_folder(attributes.folder or "")))), weights=attributes.source == "heads")
        return cls(settings.enrich.text, settings.encoder.dtype, attributes=attributes, files=files)

    @property
    def name(self) -> str:
        """What answers, for messages."""
        return "the attribute model" if self.uses_heads else super().name

    @property
    def uses_heads(self) -> bool:
        """Whether heads answer; otherwise it is a language model."""
        return self.attributes.source == "heads"

    @property
    def sees_pictures(self) -> bool:
        """Whether an answer depends on the item's picture."""
        return self.uses_heads or super().sees_pictures

    @property
    def uses_torch(self) -> bool:
        """Whether a task loads a model."""
        return self.uses_heads or super().uses_torch

    @property
    def uses_endpoint(self) -> bool:
        """Whether a task asks an endpoint."""
        return not self.uses_heads and super().uses_endpoint

    @property
    def chunk(self) -> int:
        """Items that a task works on together."""
        return HEADS_CHUNK if self.uses_heads else super().chunk

    def slices_of(self, items: int) -> int:
        """Slices, each with a commit, for so many items: one for heads."""
        return 1 if self.uses_heads else super().slices_of(items)

    def tasks_of(self, items: int, cores: int) -> int:
        """Tasks for so many items on so many cores."""
        return max(1, min(4 * cores, math.ceil(items / HEADS_TASK))) if self.uses_heads else super().tasks_of(items, cores)

    @property
    def config(self) -> HeadsConfig:
        """The vocabulary and what else the folder says."""
        assert self.files is not None
        return self.files.parsed()

    def source(self, device: str = "auto") -> AttributeSource:
        """The source of one task; on a driver it is built for its version alone."""
        assert self.files is not None
        if self.uses_heads:
            return HeadSource(AttributeHeads.of(self.files), self.attributes.threshold)
        return ModelSource(self.generator(device), self.config.vocabulary, self.sees_pictures)


def need_attributes(settings: Settings) -> None:
    """Check what the generation of attributes needs.

    Raises:
        ModelError: the folder is missing or broken, its heads are of other towers than the encoder's, or the language model's folder lacks something.
        ConfigError: the encoder reads no attributes, the heads find no feature cache, or see `GeneratorPlan.need`.
    """
    plan = AttributePlan.of(settings)
    if plan is None:
        return
    if "attributes" not in settings.metadata.fields:
        raise ConfigError("enrich.attributes.source is set, but metadata.fields has no attributes, so the encoder would not read them",
                          "add attributes to metadata.fields, or set enrich.attributes.source=none")  # fmt: skip
    if not plan.uses_heads:
        plan.need()
        return
    if not settings.features.max_gb:
        raise ConfigError("enrich.attributes.source is heads, but features.max_gb is 0: without the feature cache every picture would be encoded twice",
                          "set features.max_gb")  # fmt: skip
    plan.source()
    towers = towers_of(model_folder(settings))
    need_towers(plan.config, towers.vision, towers.text)
