"""`tgq maintain` under spark-submit, with the same options: `spark-submit jobs/maintain.py --warehouse PATH`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["maintain", *sys.argv[1:]])
