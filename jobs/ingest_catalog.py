"""spark-submit entry of one nightly step: `spark-submit jobs/ingest_catalog.py --run-id ID` (options: `tgq ingest --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["ingest", *sys.argv[1:]])
