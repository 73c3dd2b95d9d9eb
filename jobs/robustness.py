"""spark-submit entry of the robustness measurement: `spark-submit jobs/robustness.py --warehouse ...` (options: `tgq robustness --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["robustness", *sys.argv[1:]])
