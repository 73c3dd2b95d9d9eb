"""The gradients of a whole batch, chunk by chunk and in several processes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import torch

from tgq.encoder.model import TGQFormer
from tgq.errors import TgqError
from tgq.training.config import TrainConfig
from tgq.training.data.batches import Batches, Chunk
from tgq.training.loss.objective import Objective, Outputs
from tgq.training.processes import Processes


@dataclass(frozen=True)
class BatchGradients:
    """Computes the gradients of a whole batch chunk by chunk (GradCache: Gao et al. 2021, arXiv 2101.06983)."""

    encoder: TGQFormer
    objective: Objective
    batches: Batches
    config: TrainConfig
    processes: Processes

    def of_step(self, step: int) -> dict[str, float]:
        """Set the parameters' gradients for the batch of this step, and return the loss and its parts by name.

        Raises:
            TgqError: the configured precision does not exist.
        """
        c = self.config
        batch = self.batches.draw(step)
        device = self.encoder.null_image.device
        excluded, hard_excluded = (torch.from_numpy(mask).to(device) for mask in (batch.excluded, batch.hard_excluded))
        mine = {at: batch.chunk(at) for at in range(len(batch.sizes)) if at % self.processes.size == self.processes.rank}
        with torch.set_grad_enabled(not c.regather):
            outputs = {at: self._outputs(step, at, chunk) for at, chunk in mine.items()}
        whole = self._whole(batch.sizes, outputs).leaves()
        self.objective.zero_grad()
        loss, values = self.objective(whole, excluded, hard_excluded, batch.log_weights.to(device) if batch.log_weights else None)
        loss.backward()
        ends = np.cumsum([0, *batch.sizes])
        for at, chunk in mine.items():
            out = self._outputs(step, at, chunk) if c.regather else outputs[at]
            rows = slice(ends[at], ends[at + 1])
            with_gradient = [(value, leaf.grad[rows]) for value, leaf in zip(out.differentiable(), whole.differentiable(), strict=True)
                             if value.requires_grad and leaf.grad is not None]  # fmt: skip
            torch.autograd.backward([value for value, _ in with_gradient], [grad for _, grad in with_gradient])
        scales = {id(p) for p in self.objective.scales}
        self.processes.sum_gradients(p for p in self.objective.parameters() if p.requires_grad and id(p) not in scales)
        return values

    def _outputs(self, step: int, at: int, chunk: Chunk) -> Outputs:
        """Outputs of chunk `at`. Its dropout follows from (seed, step, chunk)."""
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, step, at]).generate_state(1)[0]))
        device = self.encoder.null_image.device
        chunk = chunk.to(device).with_own_logits(self.encoder)
        with self._precision(device):
            return self.objective.outputs(chunk.features, chunk.teacher, chunk.box, chunk.misleading)

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager:
        wanted = self.config.precision
        if wanted not in ("auto", "float32", "bfloat16"):
            raise TgqError(f"precision is {wanted}", "choose auto, float32 or bfloat16")
        bfloat16 = wanted == "bfloat16" or (wanted == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
        return torch.autocast(device.type, torch.bfloat16) if bfloat16 else contextlib.nullcontext()

    def _whole(self, sizes: list[int], outputs: dict[int, Outputs]) -> Outputs:
        """The outputs of all chunks of the batch, including those of other processes; `outputs` are this process's, by chunk."""
        if self.processes.size == 1:
            return Outputs.join([outputs[at] for at in range(len(sizes))])
        any_chunk = next(iter(outputs.values()))
        parts = [outputs[at].detached() if at in outputs else any_chunk.zeros(size) for at, size in enumerate(sizes)]
        return Outputs.join(parts).map(self.processes.sum)
