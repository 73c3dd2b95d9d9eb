"""`tgq report` under spark-submit, with the same options: `spark-submit jobs/report.py --run-id ID`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
