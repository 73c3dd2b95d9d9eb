"""Loads the model and the tokenizer of a transformers checkpoint from a local folder."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tgq.errors import ModelError


def load_model(folder: Path) -> Any:
    """The model of a transformers checkpoint, float32, from its safetensors weights.

    Raises:
        ModelError: the checkpoint cannot be loaded, or lacks some of the model's weights.
    """
    from transformers import AutoModel

    try:
        with quiet_transformers():
            model, info = AutoModel.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"model folder {folder} cannot be loaded ({reason})", "save it with save_pretrained") from None
    missing = [name for name in sorted(info["missing_keys"]) if not name.startswith("pooler.")]  # no tower uses the pooler
    if missing:
        raise ModelError(f"the weights of {folder} lack '{missing[0]}' and {len(missing) - 1} others",
                         "give the complete checkpoint; missing weights would be random")
    return model


@contextmanager
def quiet_transformers():
    """Silence transformers' progress bars and loading reports, which every worker process would print. Errors are still raised."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def load_tokenizer(folder: Path):
    """The tokenizer of a model folder.

    Raises:
        ModelError: the folder has no tokenizer, or its tokenizer has no vocabulary.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"model folder {folder} has no usable tokenizer ({reason})", "save its tokenizer there") from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers builds such a tokenizer if the vocabulary is missing
        raise ModelError(f"model folder {folder} has a tokenizer without a vocabulary", "save its tokenizer there")
    return tokenizer
