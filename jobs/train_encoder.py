"""spark-submit entry of one nightly step: `spark-submit jobs/train_encoder.py --run-id ID` (options: `tgq train --help`)."""

import sys

from tgq.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
