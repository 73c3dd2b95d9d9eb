"""`tgq enrich` under spark-submit, with the same options: `spark-submit jobs/enrich.py --run-id ID`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["enrich", *sys.argv[1:]])
