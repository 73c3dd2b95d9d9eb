"""The processes that share one training: one, or those that torchrun or Spark's TorchDistributor started."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """This process among `size`, each with its `device`. Chunk c of a batch is the business of process c mod size."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @classmethod
    def joined(cls, wanted: str) -> Processes:
        """The group that this process was started into, or alone with the device that is wanted; in a group of GPUs each has its own."""
        device = torch.device(wanted)
        if "RANK" not in os.environ:
            return cls(device=device)
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(device)  # what the group says would else go through the first GPU for all
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place: each filled in its own chunks and left the others zero."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def share_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every process gets the sum of all gradients. Cost: the parameters once over the network per step."""
        if self.size == 1:
            return
        own = list(parameters)
        flat = self.sum(torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in own]))
        for parameter, part in zip(own, flat.split([p.numel() for p in own]), strict=True):
            parameter.grad = part.view_as(parameter)

    def agree(self, value: float) -> float:
        """The first process's number, on all of them."""
        if self.size == 1:
            return value
        return float(self.sum(torch.tensor([value if self.rank == 0 else 0.0], dtype=torch.float64, device=self.device)))

    def leave(self) -> None:
        """Leave the group, when all have come to their end."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()
