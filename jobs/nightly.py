"""spark-submit entry of the whole night: `spark-submit jobs/nightly.py --conf cluster --catalog ...` (options: `tgq nightly --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["nightly", *sys.argv[1:]])
