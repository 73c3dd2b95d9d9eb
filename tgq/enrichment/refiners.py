"""The refiner that the settings choose: checked on the driver, built in each task with its share of the run's limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tgq.errors import ConfigError
from tgq.images.decode import ImageError
from tgq.refinement.generators.endpoint import Endpoint, EndpointOptions, authorisation
from tgq.refinement.generators.local import LocalModel
from tgq.refinement.loop import ModelRefiner
from tgq.refinement.refiner import Refiner
from tgq.refinement.rules import RuleRefiner
from tgq.settings.enrich import TextSettings
from tgq.settings.sections import Settings

RULES_CHUNK = 1000  # items that are refined together
MODEL_CHUNK = 4  # batches, or rounds of parallel requests, that are refined together: items are at different rounds
RULES_TASK = 5000  # items of a task


@dataclass(frozen=True)
class RefinerPlan:
    """How to build the refiner. It holds plain values only, and no key, so it can be sent to the executors."""

    text: TextSettings
    dtype: str = "auto"  # of a model in the workers
    tasks: int = 1  # that run at a time
    tokens: int | None = None  # that all tasks may spend together; None: no limit

    @classmethod
    def of(cls, settings: Settings) -> RefinerPlan:
        """The plan for these settings."""
        return cls(settings.enrich.text, settings.encoder.dtype)

    @property
    def uses_torch(self) -> bool:
        """Whether a task loads a model."""
        return self.text.refiner == "model" and self.text.generator == "local"

    @property
    def uses_endpoint(self) -> bool:
        """Whether a task asks an endpoint."""
        return self.text.refiner == "model" and self.text.generator == "endpoint"

    @property
    def chunk(self) -> int:
        """Items that a task refines together."""
        text = self.text
        if text.refiner == "rules":
            return RULES_CHUNK
        return MODEL_CHUNK * (text.local.batch if self.uses_torch else math.ceil(text.endpoint.parallel / self.tasks))

    def tasks_of(self, items: int, cores: int) -> int:
        """Tasks for so many items on so many cores."""
        if self.text.refiner == "rules":
            return max(1, min(4 * cores, math.ceil(items / RULES_TASK)))
        if self.uses_endpoint:  # no more of them than run at a time, because each has a share of the limits
            return max(1, min(cores, self.text.endpoint.parallel, items))
        return max(1, min(4 * cores, math.ceil(items / self.chunk)))

    def build(self, device: str = "auto") -> Refiner:
        """The refiner of one task; on a driver it is built for its version alone, and loads nothing."""
        text = self.text
        if text.refiner == "rules":
            return RuleRefiner()
        generator = Endpoint(self._endpoint()) if self.uses_endpoint else self._local(device)
        return ModelRefiner(generator, text.rounds, text.longest)

    def need(self) -> None:
        """Check what can be checked before any work.

        Raises:
            ModelError: the model's folder is missing, or has no weights, no tokenizer or no chat template.
            ConfigError: the variable with the endpoint's key is not set, or the endpoint's host is not listed.
        """
        if self.uses_torch:
            self._local("auto").need()
        if self.uses_endpoint:
            options = self._endpoint()
            try:
                authorisation(options.key_variable)
            except KeyError as missing:
                raise ConfigError(str(missing.args[0]), "set it to the key of enrich.text.endpoint") from None
            try:
                Endpoint(options).need_listed()
            except ImageError as error:
                raise ConfigError(f"enrich.text.endpoint.url: {error.detail}", "list its host in enrich.text.endpoint.allowed_hosts") from None

    def _local(self, device: str) -> LocalModel:
        text = self.text
        return LocalModel(text.local.model or "", device, self.dtype, text.local.batch, text.answer_tokens)

    def _endpoint(self) -> EndpointOptions:
        text, endpoint = self.text, self.text.endpoint
        per_minute = endpoint.requests_per_minute
        return EndpointOptions(
            url=endpoint.url or "", model=endpoint.model or "", allowed_hosts=endpoint.allowed_hosts, private_networks=endpoint.private_networks,
            key_variable=endpoint.key_variable, timeout_s=endpoint.timeout_s, retries=endpoint.retries,
            parallel=math.ceil(endpoint.parallel / self.tasks), requests_per_minute=per_minute and per_minute / self.tasks,
            tokens=None if self.tokens is None else math.ceil(self.tokens / self.tasks), answer_tokens=text.answer_tokens, json_mode=endpoint.json_mode,
        )  # fmt: skip
