"""The process group of a training: a single process, or those that torchrun or Spark's TorchDistributor started."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """This process among `size` processes, each with its own `device`. Process c mod size handles chunk c of a batch."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @classmethod
    def join(cls, wanted: str) -> Processes:
        """Join the process group of the environment variables, or stay a single process if there is none.

        Args:
            wanted: a torch device. In a group on GPUs each process gets the GPU of its local rank.
        """
        device = torch.device(wanted)
        if "RANK" not in os.environ:
            return cls(device=device)
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(device)  # otherwise all processes would communicate through the first GPU
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), device)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.size > 1 and values.numel():
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their sum over all processes. Cost: the size of the parameters over the network per step."""
        if self.size == 1:
            return
        own = list(parameters)
        flat = self.sum(torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in own]))
        for parameter, part in zip(own, flat.split([p.numel() for p in own]), strict=True):
            parameter.grad = part.view_as(parameter)

    def broadcast(self, value: float) -> float:
        """The number that the first process passes, in all processes."""
        if self.size == 1:
            return value
        return float(self.sum(torch.tensor([value if self.rank == 0 else 0.0], dtype=torch.float64, device=self.device)))

    def leave(self) -> None:
        """Wait for all processes, then leave the group."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()
