"""spark-submit entry of a promotion: `spark-submit jobs/promote.py CANDIDATE` (options: `tgq promote --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["promote", *sys.argv[1:]])
