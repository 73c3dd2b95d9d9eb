"""spark-submit entry of one nightly step: `spark-submit jobs/build_neighbors.py --run-id ID` (options: `tgq neighbors --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["neighbors", *sys.argv[1:]])
