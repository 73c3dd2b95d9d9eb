"""The metrics in the encoder's card: a nightly run on each of the study's catalogs, and its tables.

    python benchmarks/quality/card.py [--encoder FOLDER] [--catalogs demo fashion-x ...] [--work build/quality] [--out card.md]

The queries are the test groups and the pool is the whole catalog. The nightly run writes every figure and interval. A catalog that
already has a run with this encoder is not run again. If the study or a training has cached the towers' features of a catalog, the
run uses them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

from catalogs import CATALOGS, SLICES, Catalog, folder_of, profile_of, source_of, work_folder  # noqa: E402

from tgq.client.warehouse import open_warehouse  # noqa: E402
from tgq.encoder.config import EncoderConfig  # noqa: E402
from tgq.encoder.model import DEFAULT_ENCODER  # noqa: E402
from tgq.registry.loading import versions_of  # noqa: E402

SYSTEMS = {"encoder": "encoder", "frozen_concat": "concatenation", "frozen_image": "image", "frozen_text": "text"}
METRICS = {"hit_rate@1": "H@1", "hit_rate@10": "H@10", "mrr": "MRR", "map": "MAP"}
PROFILE = {"catalog": {"slice_columns": list(SLICES)}, "evaluate": {"slices": ["category", "popularity", *SLICES]}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, default=DEFAULT_ENCODER, help="folder of the encoder (default: the bundled one)")
    parser.add_argument("--catalogs", nargs="+", choices=[c.name for c in CATALOGS], default=[c.name for c in CATALOGS], metavar="NAME")
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="folder of the study's catalogs and warehouses (default build/quality)")
    parser.add_argument("--out", type=Path, help="file for the tables; default: they are printed")
    args = parser.parse_args()
    config = EncoderConfig.read(args.encoder)
    work = work_folder(args.work, {"image_size": config.image_size, "closeups": config.closeups})
    chosen = [c for c in CATALOGS if c.name in args.catalogs]
    nights = {c.name: night(c, args.encoder, work) for c in chosen}
    text = "\n\n".join([*(table(metric, nights) for metric in METRICS), slices({c.name: nights[c.name] for c in chosen if c.multiplied})])
    if args.out is None:
        print(text)
    else:
        args.out.write_text(text + "\n")
    return 0


def night(catalog: Catalog, encoder: Path, work: Path) -> dict:
    """The summary of a nightly run with this encoder, with its `retrieval_metrics` as `rows`.

    Raises:
        CalledProcessError: the run failed.
    """
    folder, warehouse = folder_of(catalog, work), source_of(catalog, work).settings.warehouse.path
    summary = work / "nights" / versions_of(str(encoder))[0] / f"{catalog.name}.json"
    if not summary.is_file():
        summary.parent.mkdir(parents=True, exist_ok=True)
        confs, partial = ["local", profile_of(catalog, work)], summary.with_suffix(".partial")
        if catalog.multiplied and not catalog.hard:
            profile = work / "nuisances.yaml"
            profile.write_text(json.dumps(PROFILE))
            confs.append(str(profile))
        subprocess.run([sys.executable, "-m", "tgq.cli.app", "nightly", "--catalog", folder, "--warehouse", warehouse, "--summary", partial,
                        "--set", f"encoder.path={encoder}", *(word for conf in confs for word in ("--conf", conf))], check=True)  # fmt: skip
        partial.rename(summary)
    found = json.loads(summary.read_text())
    return found | {"rows": open_warehouse(warehouse).metrics(found["run_id"]).to_pandas()}


def table(metric: str, nights: dict[str, dict]) -> str:
    """A row per catalog for one metric. The last column is the paired difference to the concatenation, if the run compared the metric."""
    kind, _, k = metric.partition("@")
    wanted, rows = ("frozen_concat", kind, int(k or 0)), {}
    for name, found in nights.items():
        figures = [found["metrics"][system][metric] for system in SYSTEMS]
        paired = [d for d in found["steps"]["evaluate"]["figures"]["differences"] if (d["baseline"], d["metric"], d["k"]) == wanted]
        rows[name] = [f"{figures[0]['n_queries']}, {figures[0]['pool_size']}", *map(_with_interval, figures), *(_with_interval(d, "+") for d in paired)]
    columns = [METRICS[metric], "queries, pool", *SYSTEMS.values(), "encoder minus concatenation"][: 1 + len(next(iter(rows.values())))]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())])


def slices(nights: dict[str, dict]) -> str:
    """H@1 by nuisance."""
    lines = ["| H@1 | slice | queries | " + " | ".join(SYSTEMS.values()) + " |", "|---" * (len(SYSTEMS) + 3) + "|"]
    for name, found in nights.items():
        lines += [f"| {name} | {line}" for line in _slices(found["rows"], found["model_version"])]
    return "\n".join(lines)


def _slices(rows: pd.DataFrame, model_version: str) -> Iterator[str]:
    first = rows[(rows["metric"] == "hit_rate") & (rows["k"] == 1)]
    for name in sorted(n for n in set(first["slice"]) if n.split("=")[0] in SLICES):
        of = first[first["slice"] == name].set_index("model_version")
        cells = [f"{100 * of.loc[model_version if system == 'encoder' else system, 'value']:.1f}" for system in SYSTEMS]
        yield f"{name} | {of.loc[model_version, 'n_queries']:.0f} | " + " | ".join(cells) + " |"


def _with_interval(found: dict, sign: str = "") -> str:
    value, low, high = (format(100 * found[key], f"{sign}.1f") for key in ("value", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"


if __name__ == "__main__":
    sys.exit(main())
