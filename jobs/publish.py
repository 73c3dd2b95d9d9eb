"""spark-submit entry of one nightly step: `spark-submit jobs/publish.py --run-id ID` (options: `tgq publish --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["publish", *sys.argv[1:]])
