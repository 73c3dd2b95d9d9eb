"""`tgq multiply` under spark-submit, with the same options: `spark-submit jobs/multiply.py CATALOG OUT --rows N`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["multiply", *sys.argv[1:]])
