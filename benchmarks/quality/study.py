"""TGQ-Former against rival connectors: trains, measures and writes the tables and plots, in one command.

    python benchmarks/quality/study.py [--budget quick|full] [--catalogs luma-x fashion-x ...] [--designs tgq qformer ...]

Same towers, same head, same losses, same number of steps and pairs for every design; the pool is every item of the test groups.
Two regimes: *own* trains on the catalog's own train groups, *transfer* on the train groups of all other shops. Test groups are
never trained on, and nothing is chosen on them. A trial's ranks are kept in `--work`, so that a run that was broken off goes on
where it stopped and a longer one adds to a shorter one of the same budget. Training sets are worked on side by side, one per `--workers`;
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
from dataclasses import replace
from multiprocessing import active_children, get_context
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

from catalogs import CATALOGS, Catalog, features, features_file, place_of, prepare  # noqa: E402
from tables import write_tables  # noqa: E402
from trial import BUDGETS, DESIGNS, Budget, Design, Trials, encoder_folder, ranks_file  # noqa: E402

from tgq.cli.console import ConsoleProgress  # noqa: E402
from tgq.encoder.model import EncoderConfig  # noqa: E402
from tgq.errors import TgqError  # noqa: E402
from tgq.training.data.dataset import TrainingSet  # noqa: E402

REGIMES = ("own", "transfer")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", choices=BUDGETS, default="quick",
                        help="quick: a seed, 20 steps of 64 pairs, the designs that matter most; full: 5 seeds, 200 steps of 192 pairs, all designs")
    parser.add_argument("--catalogs", nargs="+", choices=[c.name for c in CATALOGS], default=[c.name for c in CATALOGS], metavar="NAME")
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, metavar="NAME", help="default: those of the budget")
    parser.add_argument("--seeds", type=int, help="how many; default: those of the budget")
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--image-size", type=int, default=EncoderConfig().image_size, help="pixels a side that the vision tower is shown, for all designs")
    parser.add_argument("--closeups", type=int, default=EncoderConfig().closeups, help="parts a side that it is shown by themselves too, for all; 0: none")
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="features and ranks, by what the tower is shown (default build/quality)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/quality"), help="tables and plots")
    parser.add_argument("--workers", type=int, default=1 if torch.cuda.is_available() else os.cpu_count() or 1,
                        help="processes that share the cores; default: one per core, on a GPU one")
    parser.add_argument("--dry-run", action="store_true", help="say what would be trained, train nothing")
    args = parser.parse_args()
    sight = {"image_size": args.image_size, "closeups": args.closeups}
    budget = replace(BUDGETS[args.budget], seeds=args.seeds or BUDGETS[args.budget].seeds)
    work = place_of(args.work, sight)
    designs = [DESIGNS[name].seeing(sight) for name in args.designs or DESIGNS if args.designs or budget.name == "full" or DESIGNS[name].quick]
    chosen = tuple(c for c in CATALOGS if c.name in args.catalogs)
    progress = ConsoleProgress(Console(stderr=True))
    try:
        waiting = [t for t in plan(args.regimes, chosen, designs, budget) if not finished(t, budget, work)]
        progress.say(f"{len(waiting)} trials to train, budget {budget.name}")
        if args.dry_run:
            return 0
        prepare(CATALOGS if "transfer" in args.regimes else chosen, sight, work, progress)
        conduct(waiting, budget, work, max(1, args.workers), progress)
        write_tables(args.regimes, chosen, designs, budget, work, args.out)
    except TgqError as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    progress.say(f"tables in {args.out}")
    return 0


def plan(regimes: list[str], chosen: tuple[Catalog, ...], designs: list[Design], budget: Budget) -> Iterator[tuple]:
    """(regime, what is trained on, what is measured, design, seed): those of one training set in a row."""
    for regime in regimes:
        groups = [(c,) for c in chosen] if regime == "own" else [tuple(c for c in chosen if c.shop == s) for s in sorted({c.shop for c in chosen})]
        for measured in groups:
            trained = measured if regime == "own" else tuple(c for c in CATALOGS if c.shop != measured[0].shop)
            for seed in range(budget.seeds):
                for design in designs:
                    yield regime, trained, measured, design, seed


def files(trial: tuple, budget: Budget, work: Path) -> dict[str, Path]:
    """Where the ranks of a trial lie, by measured catalog."""
    regime, _, measured, design, seed = trial
    return {c.name: ranks_file(regime, c.name, design, seed, budget, work) for c in measured}


def finished(trial: tuple, budget: Budget, work: Path) -> bool:
    return all(path.is_file() for path in files(trial, budget, work).values())


def conduct(waiting: list[tuple], budget: Budget, work: Path, workers: int, progress) -> None:
    """Train and measure, the largest training sets first.

    Raises:
        TgqError: what a worker ran into, or that one was ended from outside.
    """
    sets = [list(trials) for _, trials in itertools.groupby(waiting, key=lambda trial: trial[:2])]
    sets.sort(key=lambda trials: -sum(features_file(c, "train", work).stat().st_size for c in trials[0][1]))
    progress.start("trials", len(waiting))
    signal.signal(signal.SIGTERM, ended)
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        left = {pool.submit(conduct_one, trials, budget, work) for trials in sets}
        while left:
            done, left = wait(left, timeout=5, return_when=FIRST_EXCEPTION)
            progress.update(sum(finished(trial, budget, work) for trial in waiting))
            if failed := next((job.exception() for job in done if job.exception()), None):
                pool.shutdown(cancel_futures=True)
                if isinstance(failed, BrokenProcessPool):
                    raise TgqError("a worker was ended from outside, perhaps for want of memory", "go on with --workers 1") from failed
                raise failed
    progress.finish()


def ended(*_) -> None:
    """Take the workers along, which would else work on for nobody."""
    for worker in active_children():
        worker.terminate()
    sys.exit(128 + signal.SIGTERM)


def conduct_one(waiting: list[tuple], budget: Budget, work: Path) -> None:
    """The trials of one training set; each one's files appear whole or not at all."""
    _, trained, measured, _, _ = waiting[0]
    trials = Trials(TrainingSet.concatenate([features(c, "train", work) for c in trained]), {c.name: features(c, "test", work) for c in measured}, budget)
    for trial in waiting:
        regime, _, _, design, seed = trial
        encoder, found, told = trials.run(design, seed)
        for name, path in files(trial, budget, work).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, ranks=found[name], told=json.dumps(told))
            partial.rename(path)
            if design.role == "ours" and seed == 0:
                encoder.save_pretrained(encoder_folder(regime, name, budget, work))


if __name__ == "__main__":
    sys.exit(main())
