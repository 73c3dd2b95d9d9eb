"""Converts the files of bundled packages to folders with safetensors weights, as transformers reads them."""

from __future__ import annotations

import json
from pathlib import Path


def convert_lite0(weights: Path, labels: Path, out: Path) -> None:
    """Convert TF EfficientNet-Lite0 (ImageNet-1k) to a transformers EfficientNetForImageClassification with class names.

    The transformers class has squeeze-and-excitation, which Lite has not. Its layers get expand weight 0 and bias 40, so that
    their sigmoid is exactly 1.0 and they have no effect.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    renames = (
        ("_conv_stem.", "embeddings.convolution."),
        ("_conv_head.", "encoder.top_conv."),
        ("_blocks.", "encoder.blocks."),
        ("._expand_conv.", ".expansion.expand_conv."),
        ("._bn0.", ".expansion.expand_bn."),
        ("._depthwise_conv.", ".depthwise_conv.depthwise_conv."),
        ("._bn1.", ".depthwise_conv.depthwise_norm."),
        ("._project_conv.", ".projection.project_conv."),
        ("._bn2.", ".projection.project_bn."),
    )
    stems = {"_bn0.": "efficientnet.embeddings.batchnorm.", "_bn1.": "efficientnet.encoder.top_bn.", "_fc.": "classifier."}

    def renamed(name: str) -> str:
        for old, new in stems.items():
            if name.startswith(old):
                return new + name.removeprefix(old)
        for old, new in renames:
            name = name.replace(old, new)
        return f"efficientnet.{name}"

    names = dict(enumerate(json.loads(labels.read_text())))

    config = EfficientNetConfig(
        width_coefficient=1.0, depth_coefficient=1.0, image_size=224, dropout_rate=0.2, hidden_dim=1280,
        hidden_act="relu6", batch_norm_eps=1e-3, architectures=["EfficientNetForImageClassification"], id2label=names,
    )
    pickled = torch.load(weights, map_location="cpu", weights_only=True)
    found = {renamed(name): value for name, value in pickled.items()}
    model = EfficientNetForImageClassification(config)
    for name, value in model.state_dict().items():
        if ".squeeze_excite." in name:
            found[name] = torch.full_like(value, 40.0) if name.endswith("expand.bias") else torch.zeros_like(value)
    model.load_state_dict(found, strict=True)
    config.save_pretrained(out)
    save_file({n: v.contiguous() for n, v in model.state_dict().items()}, out / "model.safetensors", {"format": "pt"})
    preprocessor = {
        "image_processor_type": "EfficientNetImageProcessor", "do_resize": True, "resample": 3,
        "size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [127 / 255] * 3, "image_std": [128 / 255] * 3,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=1))
