"""A training's whole state in one safetensors file: what makes a broken-off training go on as if nothing had happened."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tgq.errors import ModelError

MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of AdamW


@dataclass
class Progress:
    """How far a training is."""

    step: int
    best: float
    worse: int
    history: list[dict[str, float]]


def save(path: Path, identity: str, progress: Progress, state: dict[str, Tensor], best: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Write all of it, whole or not at all.

    Args:
        identity: of configuration and data; another training cannot load it.
        state: the weights now, those of the losses and the teacher among them; best: those of the best validation.
    """
    tensors = {f"now/{name}": value for name, value in state.items()} | {f"best/{name}": value for name, value in best.items()}
    for at, parameter in enumerate(_parameters(optimizer)):
        tensors |= {f"optimizer/{at}/{name}": value for name in MOMENTS if (value := optimizer.state[parameter].get(name)) is not None}
    told = {"identity": identity, "step": progress.step, "best": progress.best, "worse": progress.worse, "history": progress.history}
    partial = path.with_suffix(".partial")
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, partial, {"progress": json.dumps(told)})
    os.replace(partial, path)


def load(path: Path, identity: str, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict[str, Tensor], dict[str, Tensor]]:
    """Progress, weights and best weights; the optimizer gets its moments back.

    Raises:
        ModelError: it was written by another configuration or over other data, or cannot be read.
    """
    try:
        with safe_open(path, "pt") as file:
            told = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except Exception as error:
        raise ModelError(f"checkpoint {path} cannot be read ({' '.join(str(error).split())[:120]})", "delete it to begin again") from None
    if told["identity"] != identity:
        raise ModelError(f"checkpoint {path} is of another configuration or of other data", "train into another folder, or delete it to begin again")
    for at, parameter in enumerate(_parameters(optimizer)):
        kept = {name: tensors[f"optimizer/{at}/{name}"] for name in MOMENTS if f"optimizer/{at}/{name}" in tensors}
        if kept:
            optimizer.state[parameter] = {name: value if name == "step" else value.to(parameter.device) for name, value in kept.items()}
    now, of_best = ({name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(part)} for part in ("now/", "best/"))
    return Progress(told["step"], told["best"], told["worse"], told["history"]), now, of_best


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
