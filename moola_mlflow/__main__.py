"""``python -m moola_mlflow`` is the console script ``moola``."""

import sys

from moola_mlflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
