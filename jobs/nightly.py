"""`tgq nightly` under spark-submit, with the same options: `spark-submit jobs/nightly.py --conf cluster --catalog ...`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["nightly", *sys.argv[1:]])
