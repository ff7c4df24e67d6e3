"""The end of a command that trains."""

from __future__ import annotations

import subprocess
import sys

METHODS = "moola_mlflow.evaluation.event_methods"
"""What only a fine-tuning needs: with it come the methods of an event detector and of cross-validation."""


def test_pretrain_starts_without_the_methods_of_a_fine_tuning() -> None:
    for command, expected in (("pretrain", False), ("finetune", True)):
        code = f"import sys, moola_mlflow.cli.commands.{command}; print({METHODS!r} in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [str(expected)], command
