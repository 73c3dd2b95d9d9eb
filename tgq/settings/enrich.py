"""Settings of enrichment, which changes what the encoder reads before it reads it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tgq.settings.section import Positive, Section, Share, need_networks

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class LocalModelSettings(Section):
    """A language model that runs in the workers, on `encoder.device`."""

    model: str | None = None  # folder with safetensors weights and a chat template, hub name owner/name, or the name of a bundled model
    batch: Positive = 8  # items that it answers for together


class EndpointSettings(Section):
    """A language model behind an endpoint that speaks OpenAI's protocol for chats, as vLLM, SGLang and llama.cpp do."""

    url: str | None = None  # up to and with the version, e.g. http://llm.shop.internal:8000/v1
    model: str | None = None  # name of the model, as the endpoint knows it
    allowed_hosts: tuple[str, ...] = ()  # the host of the URL must be listed, exactly or as *.shop.com
    private_networks: tuple[str, ...] = ()  # networks, e.g. 10.0.0.0/8, in which a host that is listed by its full name may have its address
    key_variable: str | None = None  # environment variable with the endpoint's key, on the driver and the executors; null: it needs none
    json_mode: bool = True  # demand JSON by response_format; false for an endpoint that does not know it
    timeout_s: Annotated[float, Field(gt=0)] = 60.0  # to connect, and between two reads
    retries: Annotated[int, Field(ge=0)] = 3  # after a timeout, a broken connection, HTTP 429 or 5xx
    parallel: Positive = 8  # requests at a time, of all tasks together
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None  # of all tasks together; null: as many as it answers
    max_tokens: Positive | None = None  # that a run may spend, read and written; items beyond it wait for the next run; null: no limit

    @field_validator("private_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return need_networks("enrich.text.endpoint.private_networks", value)

    @field_validator("key_variable")
    @classmethod
    def _variable(cls, value: str | None) -> str | None:
        if value is not None and not VARIABLE.fullmatch(value):
            raise ValueError("enrich.text.endpoint.key_variable: no name of an environment variable; it names the variable that holds the key")
        return value


class TextSettings(Section):
    """Refinement of titles. What the encoder may not read (`metadata`) is not refined and not used for it."""

    refiner: Literal["none", "rules", "model"] = "none"  # rules: by fixed rules; model: a language model, whose titles are checked
    generator: Literal["local", "endpoint"] = "local"  # where the language model is, of this part and of enrich.attributes
    pictures: bool = False  # show the language model each item's picture too, in both parts; it must be one that reads pictures
    rounds: Annotated[int, Field(ge=1, le=5)] = 5  # titles that the language model may propose for an item, each after a critique of the last
    longest: Annotated[int, Field(ge=20)] = 150  # characters of a title by the language model
    answer_tokens: Annotated[int, Field(ge=16)] = 128  # of an answer of the language model; a longer one is cut off
    slice_items: Positive = 512  # items per commit, if a language model refines them
    local: LocalModelSettings = LocalModelSettings()
    endpoint: EndpointSettings = EndpointSettings()

    @model_validator(mode="after")
    def _complete(self) -> TextSettings:
        if self.refiner == "model":
            self.need_generator("enrich.text.refiner")
        return self

    def need_generator(self, key: str) -> None:
        """Check that a language model is named.

        Args:
            key: the setting that wants it, for the message.

        Raises:
            ValueError: none is, or the endpoint's URL is none.
        """
        if self.generator == "local" and not self.local.model:
            raise ValueError(f"enrich.text.local.model: null, but {key} is 'model'")
        if self.generator == "endpoint":
            for name in ("url", "model"):
                if not getattr(self.endpoint, name):
                    raise ValueError(f"enrich.text.endpoint.{name}: null, but enrich.text.generator is 'endpoint'")
            if not re.match(r"https?://[^/]", self.endpoint.url or ""):
                raise ValueError("enrich.text.endpoint.url: it does not begin with http:// or https://")


class AttributeSettings(Section):
    """Attributes that a shop left out, generated from an item's picture and texts. They are used only where the encoder may read attributes."""

    # heads: small heads over the encoder's features; model: the language model of enrich.text.local or enrich.text.endpoint, whose values are checked
    source: Literal["none", "heads", "model"] = "none"
    # that `tgq train-attributes` wrote: the heads, and for both sources which attributes a category has; default: bundled heads for the demo catalog
    folder: str | None = None
    threshold: Share | None = None  # lowest score of a value by heads, of all attributes; null: that of each, which training chose for its precision


class GroundingSettings(Section):
    """Visual grounding: each picture is cropped to its product before it is embedded. Off while no detector is set."""

    # none; anchor: the encoder's own attention; saliency, or an ONNX file: what stands out; a folder or hub name: a zero-shot object detector
    detector: str = "none"
    phrases: str | None = None  # YAML file, category: what a zero-shot detector looks for; null: the last level of the category
    threshold: Share | None = None  # lowest score of a box that is used, else the picture is kept whole; null: 0.3 zero-shot, 0.6 saliency, 0.15 anchor
    margin: Annotated[float, Field(ge=0, le=1)] = 0.1  # share of the box's width and height that is added on each side
    batch_pictures: Positive = 4  # in a pass of a zero-shot detector


class EnrichSettings(Section):
    """What is done with items before the encoder reads them. Off by default."""

    on_failure: Literal["continue", "stop"] = "continue"  # if a language model's endpoint is down: embed the items as they are, or end the night
    text: TextSettings = TextSettings()
    attributes: AttributeSettings = AttributeSettings()
    grounding: GroundingSettings = GroundingSettings()

    @model_validator(mode="after")
    def _complete(self) -> EnrichSettings:
        if self.attributes.source != "none" and not self.attributes.folder:
            raise ValueError(f"enrich.attributes.folder: null, but enrich.attributes.source is '{self.attributes.source}'")
        if self.attributes.source == "model":
            self.text.need_generator("enrich.attributes.source")
        return self
