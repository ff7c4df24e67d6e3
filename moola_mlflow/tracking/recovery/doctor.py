"""What may be wrong with an installation and its store, each with its cure."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from moola_mlflow.core import UserError
from moola_mlflow.tracking import run as run_module
from moola_mlflow.tracking import run_folder
from moola_mlflow.tracking.delivery import journal
from moola_mlflow.tracking.delivery.journal import Sent
from moola_mlflow.tracking.names import Tags, VersionTags
from moola_mlflow.tracking.recovery import heartbeat, relocation, stale_runs
from moola_mlflow.tracking.registry import models
from moola_mlflow.tracking.store import STORE_FAILURES, first_line, shown_uri

PACKAGE = "moola-mlflow"
LITTLE_DISK = 2e9
# A run that the launcher made and that no process of this project has touched since.
NEVER_BEGAN_S = 600
WITH_FILES = ("main", "data", "features", "label", "pretrain", "finetune", "sweep", "promote", "detect", "compare")
"""Stages whose finished runs have artifacts of their own; a trial has some where it was the best so far."""
NEWEST = 500
"""Runs of the store that are looked at."""


@dataclass(frozen=True)
class DoctorFinding:
    """One thing that was looked at; ``cure`` is empty where all is well."""

    what: str
    cure: str = ""
    fix: Callable[[], None] | None = None
    """Does what the cure says, where that can be done without asking."""


def examine_store() -> Iterator[DoctorFinding]:
    """Yield what is found, the store last: without it there is nothing more to look at."""
    yield from _environment()
    yield _disk()
    try:
        runs = _runs()
    except STORE_FAILURES as e:
        yield DoctorFinding(
            f"the store '{shown_uri()}' does not answer: {first_line(e)}",
            "start its server, or correct MLFLOW_TRACKING_URI (sqlite:///mlflow.db is the default)",
        )
        return
    yield _store(len(runs))
    yield from _stale(runs)
    yield from _unsent(runs)
    yield from _artifacts(runs)
    yield from _aliases()


def _environment() -> Iterator[DoctorFinding]:
    try:
        required = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        yield DoctorFinding(f"{PACKAGE} is not installed in {sys.prefix}", "make setup, or pip install -e .")
        return
    wrong = []
    for line in required:
        pin = re.fullmatch(r"([\w-]+)==([\w.]+)", line)
        if pin and (there := _version(pin[1])) != pin[2]:
            wrong.append(f"{pin[1]} {there or 'missing'} instead of {pin[2]}")
    if wrong:
        yield DoctorFinding(f"packages differ from their pins: {', '.join(wrong)}", "make setup, or pip install -e .")
    else:
        yield DoctorFinding(f"Python {sys.version.split()[0]}, every package as pinned")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package).split("+")[0]  # torch adds its build
    except importlib.metadata.PackageNotFoundError:
        return None


def _disk() -> DoctorFinding:
    free = shutil.disk_usage(Path.cwd()).free
    what = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    return DoctorFinding(what, "free some: a pre-training of 24 epochs keeps about 50 MB" if free < LITTLE_DISK else "")


def _runs() -> list[Run]:
    client = mlflow.MlflowClient()
    experiments = [one.experiment_id for one in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=NEWEST, order_by=["attributes.start_time DESC"]))


def _store(num_runs: int) -> DoctorFinding:
    """Whether the store can be written, which for one on this machine is tried without a change."""
    what, uri = f"store {shown_uri()}: {num_runs} runs looked at", mlflow.get_tracking_uri()
    if not uri.startswith("sqlite:///"):
        return DoctorFinding(what)
    path = Path(uri.removeprefix("sqlite:///"))
    trouble = [f"{place} is read-only" for place in (path, path.parent, path.parent / "mlruns") if _is_read_only(place)]
    if not trouble:
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
        except sqlite3.Error as e:
            trouble = [str(e)]
    if not trouble:
        return DoctorFinding(what)
    return DoctorFinding(
        f"{what}, but nothing can be written: {'; '.join(trouble)}",
        "make it writable, end what locks it, or set MLFLOW_TRACKING_URI to another store",
    )


def _is_read_only(place: Path) -> bool:
    return place.exists() and not os.access(place, os.W_OK)


def _stale(runs: list[Run]) -> Iterator[DoctorFinding]:
    """Runs that say RUNNING and do not run."""
    folders = _folders()
    for run in runs:
        if run.info.status != "RUNNING":
            continue
        run_id, name = run.info.run_id, f"run {run.info.run_id} ({run.info.run_name})"
        age_s = time.time() - run.info.start_time / 1000
        folder = folders.get(run_id)
        works = True if folder and _is_held(folder) else heartbeat.is_at_work(run)
        if works:
            yield DoctorFinding(f"{name} is running")
        elif works is False or (folder and run_folder.is_stale(folder)):
            yield DoctorFinding(
                f"{name} says RUNNING, its process is gone",
                "mark it KILLED; its checkpoints stay",
                _closer(run_id, "KILLED"),
            )
        elif folder and (ended := run_folder.read_journal(folder).status):
            if not journal.count_unsent(folder):  # else it is told with what the store lacks
                yield DoctorFinding(f"{name} says RUNNING and ended {ended}", f"moola sync {folder}")
        elif Tags.STAGE not in run.data.tags and age_s > NEVER_BEGAN_S:
            yield DoctorFinding(
                f"{name} says RUNNING for {age_s / 3600:.1f} h and never began",
                "mark it FAILED",
                _closer(run_id, "FAILED"),
            )
        else:
            yield DoctorFinding(
                f"{name} says RUNNING; it was started in another folder or on another machine, look there"
            )


def _folders() -> dict[str, Path]:
    """Return the folders of runs by the runs' ids in the store; one that began without its store has another name."""
    return {stale_runs.id_in_store(folder.name): folder for folder in run_folder.RUNS.glob("*") if folder.is_dir()}


def _is_held(folder: Path) -> bool:
    """Whether a process of this machine has the folder, or another machine was just at work on it."""
    try:
        run_folder.check_run_folder_free(folder)
    except UserError:
        return True
    return False


def _unsent(runs: list[Run]) -> Iterator[DoctorFinding]:
    """Runs that are over, and of which this store lacks something."""
    status = {run.info.run_id: run.info.status for run in runs}
    for folder in sorted(run_folder.RUNS.glob("*")):
        sent = Sent.read(folder)
        if sent is None or sent.uri != shown_uri() or _is_held(folder):
            continue
        # How a run ended the store may know from whoever found its process gone.
        known = status.get(sent.run_id)
        events = [
            event
            for event in journal.read_events(folder, sent.offset)
            if event.kind != "status" or known not in (None, event.record["status"])
        ]
        if events:
            yield DoctorFinding(f"the store lacks {len(events)} events of {folder}", f"moola sync {folder}")


def _closer(run_id: str, status: str) -> Callable[[], None]:
    def close() -> None:
        stale_runs.close_abandoned()
        client = mlflow.MlflowClient()
        if client.get_run(run_id).info.status == "RUNNING":
            client.set_tag(run_id, run_module.NOTE, "No process was at work on this run; doctor closed it.")
            client.set_terminated(run_id, status)

    return close


def _artifacts(runs: list[Run]) -> Iterator[DoctorFinding]:
    """Finished runs whose artifact folder is not where the store says."""
    lost = [
        folder for run in runs if (folder := _folder(run)) and run.info.status == "FINISHED" and not folder.is_dir()
    ]
    # Folders that were copied together from several places are put right one by one.
    for old in sorted({folder.parents[2] for folder in lost}):
        gone = [folder for folder in lost if folder.parents[2] == old]
        new = relocation.new_root(gone[0], mlflow.get_tracking_uri())
        yield DoctorFinding(
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
    if parsed.scheme not in ("", "file") or run.data.tags.get(Tags.STAGE) not in WITH_FILES:
        return None
    return Path(unquote(parsed.path))


def _remover(model: str, alias: str) -> Callable[[], None]:
    def remove() -> None:
        mlflow.MlflowClient().delete_registered_model_alias(model, alias)

    return remove


def _aliases() -> Iterator[DoctorFinding]:
    client = mlflow.MlflowClient()
    for model in client.search_registered_models():
        for alias, version in sorted(model.aliases.items()):
            try:
                held = client.get_model_version(model.name, str(version))
            except MlflowException as e:
                if e.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                yield DoctorFinding(
                    f"alias '{alias}' of {model.name} points to version {version}, which is gone",
                    f"remove the alias, then moola promote --model {model.name} --version VERSION --alias {alias}",
                    _remover(model.name, alias),
                )
                continue
            if alias != models.CANDIDATE and not models.is_regular(held):
                yield DoctorFinding(
                    f"alias '{alias}' of {model.name} was moved by hand to version {version} "
                    f"(gates: {held.tags.get(VersionTags.GATES, 'never evaluated')})",
                    f"moola promote --model {model.name} --version {version} --alias {alias}, or move it back",
                )
