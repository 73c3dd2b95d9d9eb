"""`tgq neighbors` under spark-submit, with the same options: `spark-submit jobs/build_neighbors.py --run-id ID`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["neighbors", *sys.argv[1:]])
