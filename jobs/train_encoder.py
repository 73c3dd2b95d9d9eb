"""`tgq train` under spark-submit, with the same options: `spark-submit jobs/train_encoder.py OUT --catalog FOLDER`."""

import sys

from tgq.cli.app import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
