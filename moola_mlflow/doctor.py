"""What may be wrong with an installation and its store, each with its cure."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
from mlflow.entities import Run

from moola_mlflow import registry, relocation, runfolder, tracking
from moola_mlflow.store import FAILURES, first_line, shown_uri

PACKAGE = "moola-mlflow"
LITTLE_DISK = 2e9
# A run that the launcher made and that no process of this project has touched since.
NEVER_BEGAN_S = 600
NEWEST = 500
"""Runs of the store that are looked at."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``cure`` is empty where all is well."""

    what: str
    cure: str = ""
    fix: Callable[[], None] | None = None
    """Does what the cure says, where that can be done without asking."""


def examine() -> Iterator[Finding]:
    """Yield what is found, the store last: without it there is nothing more to look at."""
    yield from _environment()
    yield _disk()
    try:
        runs = _runs()
    except FAILURES as e:
        yield Finding(
            f"the store '{shown_uri()}' does not answer: {first_line(e)}",
            "start its server, or correct MLFLOW_TRACKING_URI (sqlite:///mlflow.db is the default)",
        )
        return
    yield Finding(f"store {shown_uri()}: {len(runs)} runs looked at")
    yield from _stale(runs)
    yield from _artifacts(runs)
    yield from _aliases()


def _environment() -> Iterator[Finding]:
    try:
        required = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding(f"{PACKAGE} is not installed in {sys.prefix}", "make setup, or pip install -e .")
        return
    wrong = []
    for line in required:
        pin = re.fullmatch(r"([\w-]+)==([\w.]+)", line)
        if pin and (there := _version(pin[1])) != pin[2]:
            wrong.append(f"{pin[1]} {there or 'missing'} instead of {pin[2]}")
    if wrong:
        yield Finding(f"packages differ from their pins: {', '.join(wrong)}", "make setup, or pip install -e .")
    else:
        yield Finding(f"Python {sys.version.split()[0]}, every package as pinned")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package).split("+")[0]  # torch adds its build
    except importlib.metadata.PackageNotFoundError:
        return None


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    what = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    return Finding(what, "free some: a pre-training of 24 epochs keeps about 50 MB" if free < LITTLE_DISK else "")


def _runs() -> list[Run]:
    client = mlflow.MlflowClient()
    experiments = [one.experiment_id for one in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=NEWEST, order_by=["attributes.start_time DESC"]))


def _stale(runs: list[Run]) -> Iterator[Finding]:
    """Runs that say RUNNING and do not run."""
    running = [run for run in runs if run.info.status == "RUNNING"]
    abandoned = set(runfolder.abandoned())
    for run in running:
        run_id, name = run.info.run_id, f"run {run.info.run_id} ({run.info.run_name})"
        age_s = time.time() - run.info.start_time / 1000
        if run_id in abandoned:
            yield Finding(
                f"{name} says RUNNING, its process is gone",
                "mark it KILLED; its checkpoints stay",
                _closer(run_id, "KILLED"),
            )
        elif (runfolder.RUNS / run_id).is_dir():
            yield Finding(f"{name} is running")
        elif "moola.stage" not in run.data.tags and age_s > NEVER_BEGAN_S:
            yield Finding(
                f"{name} says RUNNING for {age_s / 3600:.1f} h and never began",
                "mark it FAILED",
                _closer(run_id, "FAILED"),
            )
        else:
            yield Finding(f"{name} says RUNNING; it was started in another folder or on another machine, look there")


def _closer(run_id: str, status: str) -> Callable[[], None]:
    def close() -> None:
        tracking.close_abandoned()
        client = mlflow.MlflowClient()
        if client.get_run(run_id).info.status == "RUNNING":
            client.set_tag(run_id, tracking.NOTE, "No process was at work on this run; doctor closed it.")
            client.set_terminated(run_id, status)

    return close


def _artifacts(runs: list[Run]) -> Iterator[Finding]:
    """Finished runs whose artifact folder is not where the store says."""
    lost = [
        folder for run in runs if (folder := _folder(run)) and run.info.status == "FINISHED" and not folder.is_dir()
    ]
    # Folders that were copied together from several places are put right one by one.
    for old in sorted({folder.parents[2] for folder in lost}):
        gone = [folder for folder in lost if folder.parents[2] == old]
        new = relocation.new_root(gone[0], mlflow.get_tracking_uri())
        yield Finding(
            f"the artifacts of {len(gone)} finished runs are not there, for instance {gone[0]}",
            f"the checkout was moved: have the store name {new} instead (it keeps a copy of itself)"
            if new
            else f"put {old.name} back where it was, or link it: ln -s WHERE_IT_IS_NOW {old}",
            _mover(old, new) if new else None,
        )


def _mover(old: Path, new: Path) -> Callable[[], None]:
    def move() -> None:
        relocation.relocate(mlflow.get_tracking_uri(), old, new)

    return move


def _folder(run: Run) -> Path | None:
    parsed = urlparse(run.info.artifact_uri)
    if (
        parsed.scheme not in ("", "file")
        or "moola.stage" not in run.data.tags
        or run.data.tags["moola.stage"] == "fold"
    ):
        return None
    return Path(unquote(parsed.path))


def _aliases() -> Iterator[Finding]:
    client = mlflow.MlflowClient()
    for model in client.search_registered_models():
        for alias, version in sorted(model.aliases.items()):
            try:
                held = client.get_model_version(model.name, str(version))
            except FAILURES:
                yield Finding(
                    f"alias '{alias}' of {model.name} points to version {version}, which is gone",
                    f"moola promote --model {model.name} --version VERSION --alias {alias}",
                )
                continue
            if alias != registry.CANDIDATE and not registry.is_regular(held):
                yield Finding(
                    f"alias '{alias}' of {model.name} was moved by hand to version {version} "
                    f"(gates: {held.tags.get('gates', 'never evaluated')})",
                    f"moola promote --model {model.name} --version {version} --alias {alias}, or move it back",
                )
