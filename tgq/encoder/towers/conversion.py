"""Converts the files of bundled packages to folders with safetensors weights, as transformers reads them."""

from __future__ import annotations

import json
from pathlib import Path

from tgq.errors import ModelError


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


def convert_gguf(weights: Path, out: Path) -> None:
    """Convert a GGUF language model to a transformers causal language model with its tokenizer.

    Its quantised weights are expanded and rounded to float16, which changes them far less than their quantisation did. transformers
    refuses to save a model that came from a GGUF file, so the weights are written here.

    Raises:
        ModelError: the file's tokenizer names no end token, or the file lacks some of the model's weights.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tgq.encoder.quiet import quiet_transformers

    place = {"gguf_file": weights.name, "local_files_only": True, "trust_remote_code": False}
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(weights.parent, **place)
        model, info = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.float32, output_loading_info=True, **place)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer in {weights} names no end token", "use a GGUF file with tokenizer.ggml.eos_token_id")
    if info["missing_keys"]:
        raise ModelError(f"{weights} lacks the weight '{min(info['missing_keys'])}'", "use a complete GGUF file")
    config = model.config
    del config.quantization_config  # of the file, not of what is written
    config.name_or_path, config.dtype = "", torch.float16
    state = model.state_dict()
    if config.tie_word_embeddings:
        state.pop("lm_head.weight", None)  # the same tensor as the token embeddings
    config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    save_file({name: value.half().contiguous() for name, value in state.items()}, out / "model.safetensors", {"format": "pt"})
