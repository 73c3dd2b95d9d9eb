"""How a vision-language model of transformers reads conversations with pictures, without torchvision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tgq.encoder.config import read_object
from tgq.encoder.quiet import quiet_transformers
from tgq.errors import ModelError
from tgq.images.decode import decode_image
from tgq.refinement.generators.generator import Chat
from tgq.refinement.generators.reader import Prompt, written

OWN: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def reads_pictures(folder: Path) -> bool:
    """Whether a folder's configuration is one of a model that answers in text to texts and pictures."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return read_object(folder / "config.json").get("model_type") in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def is_vision_model(folder: Path, wanted: bool) -> bool:
    """Whether a folder is to be loaded with its vision tower: pictures are wanted, or its language model cannot be loaded alone.

    Raises:
        ModelError: pictures are wanted, but the model reads none; or the folder has no config.json.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    reads = reads_pictures(folder)
    if wanted and not reads:
        raise ModelError(f"model folder {folder} is of a model that reads no pictures", "choose a vision-language model")
    return reads and (wanted or read_object(folder / "config.json").get("model_type") not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


class VisionReader:
    """Reads conversations with or without a picture. Pixels are prepared by Pillow and numpy, with and without torchvision.

    Raises:
        ModelError: the folder has no usable processor.
    """

    model_class = "AutoModelForImageTextToText"

    def __init__(self, folder: Path):
        self.processor = _processor(folder)
        self.tokenizer = self.processor.tokenizer

    @property
    def has_template(self) -> bool:
        """As `Reader`."""
        return bool(self.processor.chat_template)

    def prompt(self, chat: Chat) -> Prompt:
        """As `Reader`. Where the item's own texts name the token that stands for a picture, it is left out."""
        user = chat.user
        for token in self.processor.all_special_multimodal_tokens:
            user = user.replace(token, " ")
        picture = None if chat.picture is None else decode_image(chat.picture)
        text = written(Chat(chat.system, user, chat.picture), self._written)
        return Prompt(text, self._inputs([Prompt(text, 0, picture)])["input_ids"].shape[1], picture)

    def _written(self, chat: Chat) -> str:
        messages = [{"role": message["role"], "content": [{"type": "text", "text": message["content"]}]} for message in chat.messages]
        if chat.picture is not None:
            messages[-1]["content"].insert(0, {"type": "image"})
        text: str = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return text

    def inputs(self, prompts: Sequence[Prompt], device: Any, dtype: Any) -> Mapping[str, Any]:
        """As `Reader`. Either all of the prompts have a picture, or none has."""
        return dict(self._inputs(prompts).to(device, dtype=dtype))

    def _inputs(self, prompts: Sequence[Prompt]) -> Any:
        texts = [prompt.text for prompt in prompts]
        start = self.tokenizer.bos_token
        with_start = start is not None and texts[0].startswith(start)  # most templates of vision-language models leave it to the tokenizer
        images = [[prompt.picture] for prompt in prompts if prompt.picture is not None] or None
        how = {"padding": True, "padding_side": "left", "add_special_tokens": not with_start, "verbose": False}
        return self.processor(text=texts, images=images, return_tensors="pt", **how)


def _processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    try:
        with quiet_transformers():
            processor = _loaded(folder)
            processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **OWN)  # the same pixels with and without torchvision
            processor.chat_template = processor.chat_template or processor.tokenizer.chat_template
    except ModelError:
        raise
    except Exception as error:  # on files that are not what their names say transformers raises about a dozen classes
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"the processor of model folder {folder} cannot be loaded ({reason})", "save it there with save_pretrained") from None
    return processor


def _loaded(folder: Path) -> Any:
    from transformers import AutoConfig, AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        return AutoProcessor.from_pretrained(folder, **OWN)
    except Exception as error:
        if "torchvision" not in str(error).lower():
            raise
    try:  # what needs torchvision is most often the part that prepares videos, which no item has
        return _without_videos(PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(folder, **OWN))]).from_pretrained(folder, **OWN)
    except Exception:
        raise ModelError(f"the processor of model folder {folder} needs torchvision, which tgq does without",
                         "choose another model, as of Qwen2.5-VL, Qwen3-VL or LLaVA, or install torchvision beside tgq") from None  # fmt: skip


def _without_videos(kind: Any) -> Any:
    """A class of processors less its part for videos, which must be the last of its parts."""

    def get_attributes(cls: Any) -> list[str]:
        return [name for name in kind.get_attributes() if "video" not in name]

    return type(kind.__name__, (kind,), {"get_attributes": classmethod(get_attributes)})
