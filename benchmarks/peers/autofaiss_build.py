"""autofaiss: an index for vectors in an .npy file, with the memory budget that tgq has."""

from __future__ import annotations

import json
import sys
import time

import autofaiss
import faiss
import numpy as np


def main(vectors: str, out: str, budget: str, threads: str) -> None:
    faiss.omp_set_num_threads(int(threads))
    matrix = np.load(vectors)
    began = time.perf_counter()
    autofaiss.build_index(
        matrix, index_path=out, index_infos_path=f"{out}.json", save_on_disk=True, metric_type="ip", nb_cores=int(threads), max_index_memory_usage=budget,
        current_memory_available="12G", min_nearest_neighbors_to_retrieve=10, verbose=50,
    )  # fmt: skip
    print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main(*sys.argv[1:])
