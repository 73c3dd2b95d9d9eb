"""Ray Data: `map_batches` with one actor of one core per core."""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from encoding import BATCH, COLUMNS, cores, encode, encoder


class Encode:
    def __init__(self, folder: str):
        self.model = encoder(folder, 1)

    def __call__(self, batch: dict) -> dict:
        paths, metadata, titles = (batch[name].tolist() for name in COLUMNS)
        return {"item_id": batch["item_id"], "embedding": encode(self.model, [Path(path).read_bytes() for path in paths], metadata, titles)}


def main(items: str, folder: str, out: str) -> None:
    here = str(Path(__file__).parent)
    ray.init(num_cpus=cores() + 1, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": here, "OMP_NUM_THREADS": "1"}})
    data = ray.data.read_parquet(items, override_num_blocks=4 * cores())
    data = data.map_batches(Encode, fn_constructor_args=[folder], batch_size=BATCH, compute=ray.data.ActorPoolStrategy(size=cores()), num_cpus=1)
    data.write_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
