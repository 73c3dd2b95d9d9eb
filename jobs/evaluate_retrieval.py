"""spark-submit entry of one nightly step: `spark-submit jobs/evaluate_retrieval.py --run-id ID` (options: `tgq evaluate --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
