"""The process behind `warm_process`: it has imported the libraries of all commands, and forks a copy for each one.

A copy imports the package itself anew, so it runs the code of the folder that it is told, a clone's too.
"""

# ruff: noqa: F401

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import socket
import sys
import threading
from pathlib import Path

# What the commands import of other projects.
import alembic.command
import git
import jinja2
import markdown_it
import matplotlib.backends.backend_agg
import matplotlib.figure
import matplotlib.pyplot
import mlflow
import mlflow.cli
import mlflow.models.signature
import mlflow.projects
import mlflow.pyfunc
import mlflow.store.artifact.local_artifact_repo
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import mlflow.system_metrics.system_metrics_monitor
import mlflow.tracking.fluent
import mlflow.utils.requirements_utils
import numpy
import numpy.testing
import optuna
import optuna.importance
import optuna.visualization.matplotlib
import pandas
import PIL.JpegImagePlugin
import pyarrow.dataset
import pyarrow.parquet
import pydantic
import quick_sqlite
import rich.console
import rich.progress
import rich.table
import safetensors.torch
import sklearn.ensemble
import sklearn.linear_model
import sklearn.metrics
import sklearn.pipeline
import sklearn.preprocessing
import sqlalchemy.dialects.sqlite
import torch
import torch._dynamo
import torch.nn.utils.rnn
import torch.utils.data
import torch.utils.serialization.config

LARGEST_REQUEST = 200_000


def serve(asked: socket.socket) -> None:
    """Run each command that comes, in a copy of this process, until the tests' process has closed the socket."""
    mlflow.utils.requirements_utils._init_modules_to_packages_map()  # what is installed: a second for each model
    matplotlib.figure.Figure().savefig(io.BytesIO())  # fonts are found
    assert threading.active_count() == 1, "a copy has only the thread that made it"
    gc.collect()
    gc.freeze()  # copies share these pages, and need not look through them
    while True:
        words, files, _, _ = socket.recv_fds(asked, LARGEST_REQUEST, 3)
        if not words:
            return
        out, err, answer = files
        if watcher := os.fork():
            for number in files:
                os.close(number)
            os.waitpid(watcher, 0)
        elif os.fork():
            os._exit(0)  # the next one has no parent, and nobody needs to wait for it
        elif (command := os.fork()) == 0:
            os.close(answer)
            asked.close()
            become(**json.loads(words), out=out, err=err)
            return
        else:
            os.close(out)
            os.close(err)  # the reader of a pipe waits for the last that could write to it
            os.write(answer, str(command).encode())
            _, status = os.waitpid(command, 0)
            with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
                os.write(answer, str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)


def become(words: list[str], folder: str, environment: dict[str, str], out: int, err: int) -> None:
    """Do what a new interpreter would do with these words: ``-m`` and a module, or a script, and its arguments."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, target in ((out, 1), (err, 2)):
        os.dup2(number, target)
        os.close(number)
    if environment.get("PYTHONUNBUFFERED"):
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    numpy.random.seed()  # noqa: NPY002 (copies must not draw the same numbers)
    is_module = words[0] == "-m"
    sys.argv = words[is_module:]
    first = os.getcwd() if is_module else str(Path(words[0]).parent)
    sys.path[:1] = [first, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    importlib.invalidate_caches()
    if is_module:
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
