"""spark-submit entry of one nightly step: `spark-submit jobs/validate.py --run-id ID` (options: `tgq validate --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["validate", *sys.argv[1:]])
