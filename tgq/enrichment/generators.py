"""The language model that the settings choose: checked on the driver, built in each task with its share of the run's limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tgq.encoder.towers import hub
from tgq.errors import ConfigError
from tgq.images.decode import ImageError
from tgq.refinement.generators.endpoint import Endpoint, EndpointOptions, authorisation
from tgq.refinement.generators.generator import Generator
from tgq.refinement.generators.local import LocalModel
from tgq.refinement.generators.vision import reads_pictures
from tgq.settings.enrich import TextSettings

MODEL_CHUNK = 4  # batches, or rounds of parallel requests, that are answered together: items are at different rounds


@dataclass(frozen=True)
class GeneratorPlan:
    """How to build the language model. It holds plain values only, and no key, so it can be sent to the executors."""

    text: TextSettings
    dtype: str = "auto"  # of a model in the workers
    tasks: int = 1  # that run at a time
    tokens: int | None = None  # that all tasks may spend together; None: no limit

    @property
    def name(self) -> str:
        """What answers, for messages."""
        return "the language model"

    @property
    def uses_torch(self) -> bool:
        """Whether a task loads a model."""
        return self.text.generator == "local"

    @property
    def uses_endpoint(self) -> bool:
        """Whether a task asks an endpoint."""
        return self.text.generator == "endpoint"

    @property
    def sees_pictures(self) -> bool:
        """Whether an answer depends on the item's picture."""
        return self.text.pictures

    @property
    def chunk(self) -> int:
        """Items that a task works on together."""
        return MODEL_CHUNK * (self.text.local.batch if self.uses_torch else math.ceil(self.text.endpoint.parallel / self.tasks))

    def slices_of(self, items: int) -> int:
        """Slices, each with a commit, for so many items."""
        return math.ceil(items / self.text.slice_items)

    def tasks_of(self, items: int, cores: int) -> int:
        """Tasks for so many items on so many cores."""
        if self.uses_endpoint:  # no more of them than run at a time, because each has a share of the limits
            return max(1, min(cores, self.text.endpoint.parallel, items))
        return max(1, min(4 * cores, math.ceil(items / self.chunk)))

    def generator(self, device: str = "auto") -> Generator:
        """The language model of one task; on a driver it is built for its version alone, and loads nothing."""
        return Endpoint(self._endpoint()) if self.uses_endpoint else self._local(device)

    def need(self) -> None:
        """Check what can be checked before any work.

        Raises:
            ModelError: the model's folder is missing, or has no weights, no tokenizer, no chat template, or no processor of pictures if it is to see them.
            ConfigError: the model is to see pictures and reads none, the variable with the endpoint's key is not set, or its host is not listed.
        """
        if self.uses_torch:
            local = self._local("auto")
            if local.sees_pictures and not reads_pictures(hub.resolve(local.reference)):
                raise ConfigError(f"enrich.text.pictures is true, but the model {local.reference} reads no pictures",
                                  "name a vision-language model in enrich.text.local.model, or set enrich.text.pictures=false")  # fmt: skip
            local.need()
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
        return LocalModel(text.local.model or "", device, self.dtype, text.local.batch, text.answer_tokens, text.pictures)

    def _endpoint(self) -> EndpointOptions:
        text, endpoint = self.text, self.text.endpoint
        per_minute = endpoint.requests_per_minute
        return EndpointOptions(
            url=endpoint.url or "", model=endpoint.model or "", allowed_hosts=endpoint.allowed_hosts, private_networks=endpoint.private_networks,
            key_variable=endpoint.key_variable, timeout_s=endpoint.timeout_s, retries=endpoint.retries,
            parallel=math.ceil(endpoint.parallel / self.tasks), requests_per_minute=per_minute and per_minute / self.tasks,
            tokens=None if self.tokens is None else math.ceil(self.tokens / self.tasks), answer_tokens=text.answer_tokens, json_mode=endpoint.json_mode,
        )  # fmt: skip
