"""Comparison of TGQ-Former with rival connectors: trains and evaluates them, and writes tables and plots.

    python benchmarks/quality/study.py [--budget quick|full|scenes] [--catalogs luma-x fashion-x ...] [--designs tgq qformer ...]

All designs have the same towers, head, losses, number of steps and pairs. The pool is the items of all test groups. There are two
regimes: *own* trains on the catalog's own train groups, *transfer* on the train groups of all other shops. Test groups are never
used for training or for choosing anything. The ranks of each trial are stored in `--work`: a repeated command continues an
interrupted one, or adds seeds and designs to one of the same budget. `--workers` training sets are processed at the same time;
each takes up to 6 GB.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from catalogs import CATALOGS, Catalog, features, features_file, prepare, work_folder  # noqa: E402
from tables import write_tables  # noqa: E402
from trial import BUDGETS, DESIGNS, Budget, Design, Trials, encoder_folder, ranks_file  # noqa: E402

from tgq.cli.console import ConsoleProgress  # noqa: E402
from tgq.encoder.config import EncoderConfig  # noqa: E402
from tgq.encoder.towers import hub  # noqa: E402
from tgq.errors import TgqError  # noqa: E402
from tgq.training.data.dataset import TrainingSet  # noqa: E402

REGIMES = ("own", "transfer")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=BUDGETS, default="quick",
                        help="quick: 1 seed, 20 steps of 64 pairs, the most important designs; full: 5 seeds, 200 steps of 192 pairs, all designs; "
                             "scenes: 5 seeds, 400 steps of 128 pairs, half of the items in composed scenes, all designs")
    parser.add_argument("--catalogs", nargs="+", choices=[c.name for c in CATALOGS], default=[c.name for c in CATALOGS], metavar="NAME")
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, metavar="NAME", help="default: those of the budget")
    parser.add_argument("--seeds", type=int, help="number of seeds; default: that of the budget")
    parser.add_argument("--steps", type=int, help="steps of each training; default: those of the budget")
    parser.add_argument("--pairs", type=int, help="pairs in a batch; default: those of the budget")
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--image-size", type=int, default=EncoderConfig().image_size, help="side of the vision tower's input in pixels, for all designs")
    parser.add_argument("--closeups", type=int, default=EncoderConfig().closeups, help="close-ups per side for the tower, for all designs; 0: none")
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="folder for features and ranks (default build/quality)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality"), help="folder for tables and plots")
    parser.add_argument("--workers", type=int, default=1 if torch.cuda.is_available() else os.cpu_count() or 1,
                        help="number of processes; default: one per core, or one with a GPU")
    parser.add_argument("--dry-run", action="store_true", help="print the number of trials; train nothing")
    args = parser.parse_args()
    tower_input = {"image_size": args.image_size, "closeups": args.closeups}
    budget = BUDGETS[args.budget].changed(args.seeds, args.steps, args.pairs)
    work = work_folder(args.work, tower_input)
    wanted = [DESIGNS[name] for name in args.designs or DESIGNS if args.designs or args.budget != "quick" or DESIGNS[name].quick]
    designs = [design.with_input(tower_input) for design in wanted if args.designs or not design.left_out]
    chosen = tuple(c for c in CATALOGS if c.name in args.catalogs)
    progress = ConsoleProgress(Console(stderr=True))
    for design in wanted if not args.designs else ():
        if design.left_out:
            progress.say(f"left out: '{design.name}', because {design.left_out}. It runs if --designs names it")
    try:
        for design in designs:
            if llm := design.encoder.get("llm"):
                hub.resolve(llm)  # converted once, before the workers start, and missed before the towers run
        waiting = [t for t in plan(args.regimes, chosen, designs, budget) if not finished(t, budget, work)]
        progress.say(f"{len(waiting)} trials to train, budget {budget.name}")
        if args.dry_run:
            return 0
        prepare(CATALOGS if "transfer" in args.regimes else chosen, tower_input, work, progress)
        run_trials(waiting, budget, work, max(1, args.workers), progress)
        write_tables(args.regimes, chosen, designs, budget, work, args.out)
    except TgqError as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    progress.say(f"tables in {args.out}")
    return 0


def plan(regimes: list[str], chosen: tuple[Catalog, ...], designs: list[Design], budget: Budget) -> Iterator[tuple]:
    """The trials: (regime, training catalogs, test catalogs, design, seed). Trials with the same training set are consecutive."""
    for regime in regimes:
        groups = [(c,) for c in chosen] if regime == "own" else [tuple(c for c in chosen if c.shop == s) for s in sorted({c.shop for c in chosen})]
        for measured in groups:
            trained = measured if regime == "own" else tuple(c for c in CATALOGS if c.shop != measured[0].shop and not c.hard)
            for seed in range(budget.seeds):
                for design in designs:
                    yield regime, trained, measured, design, seed


def files(trial: tuple, budget: Budget, work: Path) -> dict[str, Path]:
    """The files with the ranks of a trial, by test catalog."""
    regime, _, measured, design, seed = trial
    return {c.name: ranks_file(regime, c.name, design, seed, budget, work) for c in measured}


def finished(trial: tuple, budget: Budget, work: Path) -> bool:
    return all(path.is_file() for path in files(trial, budget, work).values())


def run_trials(waiting: list[tuple], budget: Budget, work: Path, workers: int, progress) -> None:
    """Run the trials in processes, those of the largest training sets first.

    Raises:
        TgqError: a worker failed or was killed.
    """
    sets = [list(trials) for _, trials in itertools.groupby(waiting, key=lambda trial: trial[:2])]
    sets.sort(key=lambda trials: -sum(features_file(c, "train", work).stat().st_size for c in trials[0][1]))
    progress.start("trials", len(waiting))
    signal.signal(signal.SIGTERM, end_workers)
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        left = {pool.submit(run_training_set, trials, budget, work) for trials in sets}
        while left:
            done, left = wait(left, timeout=5, return_when=FIRST_EXCEPTION)
            progress.update(sum(finished(trial, budget, work) for trial in waiting))
            if failed := next((job.exception() for job in done if job.exception()), None):
                pool.shutdown(cancel_futures=True)
                if isinstance(failed, BrokenProcessPool):
                    raise TgqError("a worker was killed, perhaps because memory ran out", "repeat the command with --workers 1") from failed
                raise failed
    progress.finish()


def end_workers(*_) -> None:
    """On SIGTERM, end the workers too."""
    for worker in active_children():
        worker.terminate()
    sys.exit(128 + signal.SIGTERM)


def run_training_set(waiting: list[tuple], budget: Budget, work: Path) -> None:
    """Run the trials of one training set. Their files are written atomically."""
    _, trained, measured, _, _ = waiting[0]
    trials = Trials(TrainingSet.concatenate([features(c, "train", work) for c in trained]), {c.name: features(c, "test", work) for c in measured}, budget)
    for trial in waiting:
        regime, _, _, design, seed = trial
        encoder, found, history = trials.run(design, seed)
        for name, path in files(trial, budget, work).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, ranks=found[name], told=json.dumps(history))
            partial.rename(path)
            if design.role == "ours" and seed == 0:
                encoder.save_pretrained(encoder_folder(regime, name, budget, work))


if __name__ == "__main__":
    sys.exit(main())
