"""spark-submit entry of one nightly step: `spark-submit jobs/build_index.py --run-id ID` (options: `tgq index --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["index", *sys.argv[1:]])
