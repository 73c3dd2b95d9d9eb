"""Speed of composed scenes: casting and composition per second at the sizes of the default towers.

    python benchmarks/scenes.py [--scenes 192] [--rounds 20] [--pictures 2000] [--threads 2] [--out FILE]

The tokens are random numbers, because the speed does not depend on them. A round casts and composes one batch. Expected before the
measurement: 2,000 scenes per second on two cores, so that scenes cost little beside the encoder's pass over the batch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tgq.training.data.casting import Casting
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.scenes import Banks, SceneParts, compose_into

SIDE, WIDTH = 10, 1280


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=192, help="scenes in a batch")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = random_rows(args.pictures)
    assert rows.parts is not None and rows.banks is not None
    casting, wall, cpu = Casting(rows, share=1.0, same_category=0.3), [], []
    tokens = torch.empty(args.scenes, SIDE**2 + 4, WIDTH)  # training composes into the batch's tensors likewise
    for number in range(args.rounds + 1):  # round 0 warms up and does not count
        draw = np.random.default_rng(number)
        items = draw.integers(0, len(rows), args.scenes)
        clocks = [(time.perf_counter(), time.process_time())]
        _, cast = casting.draw(items, draw)
        clocks.append((time.perf_counter(), time.process_time()))
        compose_into(list(tokens), rows.parts, rows.banks, cast)
        clocks.append((time.perf_counter(), time.process_time()))
        assert len(cast) == args.scenes
        if number:
            took = np.diff(np.array(clocks), axis=0)
            wall.append(took[:, 0])
            cpu.append(took[:, 1])
    load, found = os.getloadavg()[0], {}
    for name, seconds in (("wall clock", np.array(wall)), ("CPU time", np.array(cpu))):
        rates, (to_cast, to_compose) = args.scenes / seconds.sum(1), 1e6 * np.median(seconds, axis=0) / args.scenes
        found[name] = rates.tolist()
        print(f"{name}: {np.median(rates):.0f} scenes/s [{rates.min():.0f}, {rates.max():.0f}]; {to_cast:.0f} us to cast, {to_compose:.0f} us to compose")
    print(f"{args.threads} threads, load {load:.1f} on {len(os.sched_getaffinity(0))} cores; CPU time is that of all threads together")
    if args.out:
        machine = {"cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "torch": torch.__version__, "load": load}
        record = {"scenes_per_s": found, "batch": args.scenes, "pictures": args.pictures, "threads": args.threads, **machine}
        args.out.write_text(json.dumps(record, indent=1) + "\n")


def random_rows(pictures: int) -> TrainingSet:
    """Items with a picture each, four to a group, in 20 categories."""
    draw = np.random.default_rng(0)

    def tokens(*shape: int) -> np.ndarray:
        return draw.random((*shape, WIDTH), np.float32).astype(np.float16)

    at, blank = np.arange(pictures), np.zeros((1, 1, 1), np.float16)
    group = at // 4
    return TrainingSet(
        blank, np.zeros((pictures, 1), np.float32), blank, np.ones((1, 1), bool), np.zeros((1, 1), np.float32), ("",), np.zeros((1, 1), np.float32),
        at, np.zeros((pictures, 2), int), np.zeros(pictures, int), group.astype(str), np.array(["drawn"] * pictures), at.astype(str),
        np.stack([at, at ^ 1], 1), np.zeros((0, 2), int), np.zeros((pictures, 0), int), category=(group % 20).astype(str),
        parts=SceneParts(tokens(pictures, SIDE // 2, SIDE // 2), tokens(pictures), np.ones(pictures, bool)),
        banks=Banks(tokens(200, SIDE, SIDE), tokens(200, 4), tokens(100, SIDE, SIDE), np.array([[8, 10]] * 100)),
    )  # fmt: skip


if __name__ == "__main__":
    main()
