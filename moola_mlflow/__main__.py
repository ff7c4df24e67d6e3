"""``python -m moola_mlflow`` and the console script ``moola``."""

import gc
import os
import sys

from moola_mlflow.core import Interrupted, Interrupts, guard_console, rest_collector, settle_console


def main() -> int:
    """Run the command line; signals are handled before anything slow is imported."""
    # Under the launcher a vanished parent means that nobody waits for this process any more.
    interrupts = Interrupts(watch_parent="MLFLOW_RUN_ID" in os.environ)
    interrupts.install()
    guard_console()
    rest_collector()
    try:
        from moola_mlflow.cli import run_cli

        return run_cli(interrupts=interrupts)
    except Interrupted as e:
        return e.exit_code
    finally:
        settle_console()
        gc.freeze()  # the interpreter would look through all that was imported once more before it ends: two seconds


if __name__ == "__main__":
    sys.exit(main())
