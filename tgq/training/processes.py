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
    """This process among `size`. Chunk c of a batch is the business of process c mod size."""

    rank: int = 0
    size: int = 1

    @classmethod
    def joined(cls) -> Processes:
        """The group that this process was started into; alone where it was not."""
        if "RANK" not in os.environ:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

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
        told = torch.tensor([value if self.rank == 0 else 0.0], dtype=torch.float64)
        return float(self.sum(told.cuda() if torch.cuda.is_available() else told))

    def leave(self) -> None:
        """Leave the group, when all have come to their end."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()
