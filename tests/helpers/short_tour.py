"""The tour with short fine-tunings: they take more than half of its time, and only their size differs here.

`test_tour_command.py` runs it in place of ``-m moola_mlflow``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from moola_mlflow.__main__ import main
from moola_mlflow.cli.child_commands import ChildCommands
from moola_mlflow.tracking import RunRecord

FEW = {"folds": "2", "cv.baselines": "quick", "cv.workers": "1"}
step = ChildCommands.step


def short_step(self: ChildCommands, why: str, command: str, look: str, arguments: Mapping[str, object]) -> RunRecord:
    """Run a step, a fine-tuning with few folds and baselines."""
    return step(self, why, command, look, {**arguments, **(FEW if command == "finetune" else {})})


if __name__ == "__main__":
    ChildCommands.step = short_step  # type: ignore[method-assign]
    sys.exit(main())
