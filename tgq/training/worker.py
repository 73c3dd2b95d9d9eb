"""A training run in a folder: the job writes its input there, and one or more training processes write their results there.

    python -m tgq.training.worker FOLDER                                             one process
    torchrun --standalone --nproc_per_node 2 -m tgq.training.worker FOLDER           several, on one machine or many

The input is `job.json` and `training_set.npz`. During training the folder also holds `checkpoint.safetensors` and
`curve.jsonl`, and at the end `encoder/`. Every process must reach the folder at the same path and holds the whole training
set in memory.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import TGQFormer
from tgq.training.data.dataset import TrainingSet
from tgq.training.processes import Processes
from tgq.training.trainer import Log, TrainConfig, train

CURVE, RESULT = "curve.jsonl", "encoder"


def prepare(folder: Path, encoder: EncoderConfig, config: TrainConfig, rows: TrainingSet, device: str) -> None:
    """Write the input of `run` and delete an old curve, because a resumed training logs its whole history again."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CURVE).unlink(missing_ok=True)
    rows.save(folder / "training_set.npz")
    (folder / "job.json").write_text(json.dumps({"encoder": asdict(encoder), "training": asdict(config), "device": device}, indent=1))


def run(folder: str | Path, log: Log = lambda step, values: None) -> None:
    """Train as one process of the group that torchrun or Spark started. The first process writes the curve and the encoder.

    Args:
        folder: written by `prepare`.
        log: called in the first process with each step's number and values.

    Raises:
        ModelError, SourceError, TgqError: as `train`.
    """
    folder = Path(folder)
    job = json.loads((folder / "job.json").read_text())
    config, processes = TrainConfig(**job["training"]), Processes.join(job["device"])
    if processes.size > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes.size))
    torch.manual_seed(config.seed)
    encoder = TGQFormer(EncoderConfig(**job["encoder"])).to(processes.device)
    rows = TrainingSet.load(folder / "training_set.npz")

    def write_log(step: int, values: dict[str, float]) -> None:
        if processes.rank == 0:
            with (folder / CURVE).open("a") as file:
                file.write(json.dumps({**values, "step": step}) + "\n")
            log(step, values)

    train(encoder, rows, config, write_log, checkpoint=folder / "checkpoint.safetensors", processes=processes)
    if processes.rank == 0:
        encoder.save_pretrained(folder / RESULT)
    processes.leave()


def read_curve(folder: Path) -> list[dict[str, float]]:
    """The values that were logged so far, one dict per evaluation. An incomplete last line is ignored."""
    path = folder / CURVE
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    run(sys.argv[1])
