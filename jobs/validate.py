"""`tgq validate` under spark-submit, with the same options: `spark-submit jobs/validate.py --run-id ID`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["validate", *sys.argv[1:]])
