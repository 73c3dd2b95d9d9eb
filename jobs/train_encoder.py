"""spark-submit entry of the training: `spark-submit jobs/train_encoder.py OUT --catalog FOLDER` (options: `tgq train --help`)."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
