"""Loads the model and the tokenizer of a transformers checkpoint from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tgq.encoder.config import read_object
from tgq.encoder.quiet import quiet_transformers
from tgq.encoder.towers import hub
from tgq.errors import ModelError


def load_model(folder: Path, kind: str = "AutoModel", dtype: torch.dtype = torch.float32) -> Any:
    """The model of a transformers checkpoint, from its safetensors weights.

    Args:
        kind: name of the class of transformers that chooses the model's own class.

    Raises:
        ModelError: the checkpoint cannot be loaded, or lacks some of the model's weights.
    """
    import transformers

    _need_own_code(folder)
    try:
        with quiet_transformers():
            model, info = getattr(transformers, kind).from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=dtype, output_loading_info=True,
            )
    except Exception as error:  # on files that are not what their names say transformers raises about a dozen classes
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"model folder {folder} cannot be loaded ({reason})", "save it with save_pretrained") from None
    missing = [name for name in sorted(info["missing_keys"]) if not name.startswith("pooler.")]  # no tower uses the pooler
    if missing:
        raise ModelError(f"the weights of {folder} lack '{missing[0]}' and {len(missing) - 1} others",
                         "give the complete checkpoint; missing weights would be random")
    return model


def _need_own_code(folder: Path) -> None:
    """Check that a checkpoint is loaded from its own safetensors files and by transformers' own code.

    An adapter's configuration would load the weights of another place, which no hash here covers; an index would load pickles or files of
    another folder; and an implementation with a name of the hub (`owner/kernel`) would load code from there.

    Raises:
        ModelError: its files say otherwise.
    """
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"model folder {folder} is an adapter of another model (adapter_config.json)", "merge it, and save the whole model")
    if not (folder / "config.json").is_file():
        raise ModelError(f"model folder {folder} has no config.json", "save it with save_pretrained")
    own = {file.name for file in hub.weight_files(folder)}
    for index in sorted(folder.glob("*.index.json")):
        names = read_object(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(name, str) and name in own for name in names.values()):
            raise ModelError(f"{index} names a file that holds no weights of this folder", "save the model again, as *.safetensors")
    groups: list[Any] = [read_object(folder / "config.json")]
    while groups:
        group = groups.pop()
        for name, value in group.items() if isinstance(group, dict) else ():
            if str(name).endswith("_implementation") and "/" in str(value):
                raise ModelError(f"{folder / 'config.json'}: {name} names code of the hub ({str(value)[:80]})", "remove this key")
            groups.append(value)


def load_tokenizer(folder: Path):
    """The tokenizer of a model folder.

    Raises:
        ModelError: the folder has no tokenizer, or its tokenizer has no vocabulary.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"model folder {folder} has no usable tokenizer ({reason})", "save its tokenizer there") from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers builds such a tokenizer if the vocabulary is missing
        raise ModelError(f"model folder {folder} has a tokenizer without a vocabulary", "save its tokenizer there")
    return tokenizer
