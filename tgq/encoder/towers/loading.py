"""Loading a transformers checkpoint's model and tokenizer from a folder of safetensors."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tgq.errors import ModelError


def load_model(folder: Path) -> Any:
    """A transformers checkpoint from its safetensors, float32; ModelError where it cannot be had whole."""
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
    missing = [name for name in sorted(info["missing_keys"]) if not name.startswith("pooler.")]  # no tower uses a pooler
    if missing:
        raise ModelError(f"the weights of {folder} lack '{missing[0]}' and {len(missing) - 1} more",
                         "give the whole checkpoint; what is missing would be random")
    return model


@contextmanager
def quiet_transformers():
    """No progress bar and no report per tower per worker process; what is wrong is raised instead."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def load_tokenizer(folder: Path):
    """The folder's tokenizer; ModelError where there is none, or one that knows no word."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(f"model folder {folder} has no usable tokenizer ({reason})", "save its tokenizer there") from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes up where there is no vocabulary
        raise ModelError(f"model folder {folder} has a tokenizer without a vocabulary", "save its tokenizer there")
    return tokenizer
