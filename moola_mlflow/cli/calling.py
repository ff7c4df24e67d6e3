"""Run a command, for the command line and for the functions of the Python API."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from moola_mlflow.cli.ahead import begin_ahead, workers_of
from moola_mlflow.cli.entry_points import ENTRY_POINTS
from moola_mlflow.cli.parser import Parsed, settle
from moola_mlflow.core import (
    Interrupts,
    RuntimeConfig,
    UserError,
    early_workers,
    is_tuned,
    num_processes,
    prepare_environment,
)


def run_parsed(name: str, parsed: Parsed, interrupts: Interrupts, check: Callable[[], None] = lambda: None) -> Any:
    """Run a command, and return its outcome if it has one. ``check`` refuses what is known to be wrong before it."""
    runtime = getattr(parsed.config, "runtime", RuntimeConfig())  # a command that computes little lacks the section
    prepare_environment(runtime.threads, is_tuned(runtime))  # before torch or MLflow is imported
    with early_workers(*workers_of(name, parsed)):
        begin_ahead(name, parsed)
        check()
        command = importlib.import_module(f"moola_mlflow.cli.commands.{ENTRY_POINTS[name].module or name}")
        return command.run(parsed.config, parsed.preset, interrupts, **parsed.arguments)


def call_command(name: str, values: Mapping[str, Any]) -> Any:
    """Run a command in this process with short parameters, dotted keys and arguments, and return its outcome.

    Raises: UserError; TrainingError; GateError.
    """
    if (count := num_processes()) > 1:
        raise UserError(
            f"{name} was called in each of {count} processes (WORLD_SIZE={count}), and one function call is one "
            f"process; start the command instead: torchrun --nproc-per-node {count} -m moola_mlflow {name}"
        )
    return run_parsed(name, settle(name, values), Interrupts())
