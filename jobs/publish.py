"""`tgq publish` under spark-submit, with the same options: `spark-submit jobs/publish.py --run-id ID`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["publish", *sys.argv[1:]])
