"""The command line: parse, explain, run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.cli.calling import call_command
    from moola_mlflow.cli.main import run_cli

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "calling": ("call_command",),
        "main": ("run_cli",),
    },
)
