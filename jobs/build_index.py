"""`tgq index` under spark-submit, with the same options: `spark-submit jobs/build_index.py --run-id ID`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["index", *sys.argv[1:]])
