"""A training as a folder: what the job prepared lies in it, what came of it is written there, by any number of processes.

    python -m tgq.training.worker FOLDER                                             one process
    torchrun --standalone --nproc_per_node 2 -m tgq.training.worker FOLDER           several, on one machine or many

The folder holds `job.json`, `training_set.npz` and, on the way, `checkpoint.safetensors` and `curve.jsonl`; at the end `encoder/`.
Every process reads the whole training set (its memory is that many times taken), and must reach the folder at the same path.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from tgq.encoder.model import EncoderConfig, TGQFormer
from tgq.training.data.dataset import TrainingSet
from tgq.training.processes import Processes
from tgq.training.trainer import Log, TrainConfig, train

CURVE, RESULT = "curve.jsonl", "encoder"


def prepare(folder: Path, encoder: EncoderConfig, config: TrainConfig, rows: TrainingSet, device: str) -> None:
    """Write what `run` reads, and begin the curve anew: a resumed training tells its history again."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CURVE).unlink(missing_ok=True)
    rows.save(folder / "training_set.npz")
    (folder / "job.json").write_text(json.dumps({"encoder": asdict(encoder), "training": asdict(config), "device": device}, indent=1))


def run(folder: str | Path, log: Log = lambda step, values: None) -> None:
    """Train as one of the processes of the group that this one was started into; the first writes what comes of it.

    Raises:
        ModelError, SourceError, TgqError: as `train`.
    """
    folder = Path(folder)
    job = json.loads((folder / "job.json").read_text())
    config, processes = TrainConfig(**job["training"]), Processes.joined(job["device"])
    if processes.size > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes.size))
    torch.manual_seed(config.seed)
    encoder = TGQFormer(EncoderConfig(**job["encoder"])).to(processes.device)
    rows = TrainingSet.load(folder / "training_set.npz")

    def tell(step: int, values: dict[str, float]) -> None:
        if processes.rank == 0:
            with (folder / CURVE).open("a") as file:
                file.write(json.dumps({**values, "step": step}) + "\n")
            log(step, values)

    train(encoder, rows, config, tell, checkpoint=folder / "checkpoint.safetensors", processes=processes)
    if processes.rank == 0:
        encoder.save_pretrained(folder / RESULT)
    processes.leave()


def curve_of(folder: Path) -> list[dict[str, float]]:
    """What was logged so far; a line that is just being written waits."""
    path = folder / CURVE
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    run(sys.argv[1])
