"""`tgq embed` under spark-submit, with the same options: `spark-submit jobs/embed_catalog.py --run-id ID`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["embed", *sys.argv[1:]])
