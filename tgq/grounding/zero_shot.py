"""A zero-shot object detector of transformers (Grounding DINO, OWLv2 and others): the box that fits the phrase best.

Its processor uses Pillow and numpy if torchvision is not installed, which it does not need.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tgq.encoder.quiet import quiet_transformers
from tgq.encoder.towers.loading import load_model
from tgq.errors import ModelError
from tgq.grounding.box import Found


class ZeroShot:
    """A detector that is told in words what to look for (Liu et al. 2023, arXiv 2303.05499; Minderer et al. 2023, arXiv 2306.09683).

    Cost: one pass of the detector for each picture, which for the published checkpoints is several times that of a vision tower. Pictures of
    one pass are padded to the largest, which may move a box a little.

    Args:
        folder: a checkpoint with its processor, as `save_pretrained` writes them.
        device: where it runs, in float32.
        at_once: pictures of a pass.

    Raises:
        ModelError: the checkpoint cannot be loaded, or is no zero-shot object detector.
    """

    def __init__(self, folder: Path, device: str | torch.device = "cpu", at_once: int = 4):
        self.at_once = at_once
        self.model = load_model(folder, "AutoModelForZeroShotObjectDetection").to(device).eval()
        self.processor = _processor(folder)
        self.nested = self.model.config.model_type.startswith("owl")

    @torch.no_grad()
    def find(self, pictures: Sequence[Image.Image], phrases: Sequence[str]) -> list[Found | None]:
        """See Detector."""
        texts = [[_words(phrase)] for phrase in phrases]
        # the words of OWL are always as many as it was trained on, and its processor says so itself
        padding: dict[str, Any] = {} if self.nested else {"padding": True, "truncation": True}
        inputs = self.processor(images=list(pictures), text=texts, return_tensors="pt", **padding).to(self.model.device)
        outputs = self.model(**inputs)
        sizes = [(picture.height, picture.width) for picture in pictures]
        # a text threshold of 1 leaves out the names of the boxes, which nobody needs
        more: dict[str, Any] = {} if self.nested else {"input_ids": inputs["input_ids"], "text_threshold": 1.0}
        results = self.processor.post_process_grounded_object_detection(outputs, threshold=0.0, target_sizes=sizes, **more)
        return [_best(result, *size) for result, size in zip(results, sizes, strict=True)]


def _processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor, AutoProcessor

    own: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with quiet_transformers():
            processor = AutoProcessor.from_pretrained(folder, **own)
            processor.image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil", **own)  # the same pixels with and without torchvision
    except Exception as error:  # on files that are not what their names say transformers raises about a dozen classes
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"the processor of detector {folder} cannot be loaded ({reason})", "save it there with save_pretrained") from None
    if not hasattr(processor, "post_process_grounded_object_detection"):
        raise ModelError(f"the processor of detector {folder} is a {type(processor).__name__}, which gives no boxes for words",
                         "name a Grounding DINO, an OWL-ViT or an OWLv2")  # fmt: skip
    return processor


def _words(phrase: str) -> str:
    """The phrase as one label: a full stop would begin the next one."""
    return " ".join(phrase.replace(".", " ").lower().split())


def _best(result: dict[str, torch.Tensor], height: int, width: int) -> Found | None:
    scores = result["scores"].float().nan_to_num(-1.0)
    if not len(scores):
        return None
    at = int(scores.argmax())
    x0, y0, x1, y1 = result["boxes"][at].float().tolist()
    return Found((x0 / width, y0 / height, x1 / width, y1 / height), float(result["scores"][at]))
