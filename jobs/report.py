"""spark-submit entry of one nightly step: `spark-submit jobs/report.py --run-id ID` (options: `tgq report --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
