"""spark-submit entry of one nightly step: `spark-submit jobs/embed_catalog.py --run-id ID` (options: `tgq embed --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["embed", *sys.argv[1:]])
