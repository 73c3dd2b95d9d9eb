"""`tgq ingest` under spark-submit, with the same options: `spark-submit jobs/ingest_catalog.py --run-id ID`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["ingest", *sys.argv[1:]])
