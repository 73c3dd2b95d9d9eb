"""The complete state of a training in one safetensors file, from which an interrupted training resumes."""

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
    """The position of a training."""

    step: int  # last finished step
    best: float  # best validation MRR so far
    worse: int  # evaluations since the best one
    history: list[dict[str, float]]  # the logged values of each evaluation


def save(path: Path, identity: str, progress: Progress, state: dict[str, Tensor], best: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint atomically.

    Args:
        identity: a hash of configuration and data. `load` refuses a checkpoint with another identity.
        state: the current weights, including those of the losses.
        best: the encoder's weights at the best validation.
    """
    tensors = {f"now/{name}": value for name, value in state.items()} | {f"best/{name}": value for name, value in best.items()}
    for at, parameter in enumerate(_parameters(optimizer)):
        tensors |= {f"optimizer/{at}/{name}": value for name in MOMENTS if (value := optimizer.state[parameter].get(name)) is not None}
    header = {"identity": identity, "step": progress.step, "best": progress.best, "worse": progress.worse, "history": progress.history}
    partial = path.with_suffix(".partial")
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, partial, {"progress": json.dumps(header)})
    os.replace(partial, path)


def load(path: Path, identity: str, optimizer: torch.optim.Optimizer) -> tuple[Progress, dict[str, Tensor], dict[str, Tensor]]:
    """Progress, current weights and best weights of a checkpoint. The optimizer's moments are restored in place.

    Raises:
        ModelError: the checkpoint cannot be read, or was written with another configuration or other data.
    """
    try:
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except Exception as error:
        raise ModelError(f"checkpoint {path} cannot be read ({' '.join(str(error).split())[:120]})", "delete it to start again") from None
    if header["identity"] != identity:
        raise ModelError(f"checkpoint {path} was written with another configuration or other data", "train into another folder, or delete it to start again")
    for at, parameter in enumerate(_parameters(optimizer)):
        moments = {name: tensors[f"optimizer/{at}/{name}"] for name in MOMENTS if f"optimizer/{at}/{name}" in tensors}
        if moments:
            optimizer.state[parameter] = {name: value if name == "step" else value.to(parameter.device) for name, value in moments.items()}
    now, of_best = ({name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(part)} for part in ("now/", "best/"))
    return Progress(header["step"], header["best"], header["worse"], header["history"]), now, of_best


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
