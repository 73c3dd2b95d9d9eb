"""`tgq robustness` under spark-submit, with the same options: `spark-submit jobs/robustness.py --warehouse ...`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["robustness", *sys.argv[1:]])
