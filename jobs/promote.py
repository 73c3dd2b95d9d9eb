"""`tgq promote` under spark-submit, with the same options: `spark-submit jobs/promote.py ENCODER`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["promote", *sys.argv[1:]])
