"""`tgq evaluate` under spark-submit, with the same options: `spark-submit jobs/evaluate_retrieval.py --run-id ID`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
