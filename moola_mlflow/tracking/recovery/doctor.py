"""Find what is wrong with the installation and the store, each with what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from packaging.requirements import Requirement

from moola_mlflow.core import UserError
from moola_mlflow.tracking import origin, run_folder
from moola_mlflow.tracking.addresses import store_file
from moola_mlflow.tracking.delivery import (
    Sent,
    count_unsent,
    damaged_lines,
    describe_lines,
    held_events,
    id_in_store,
    is_forgotten,
    read_history,
    unsent_events,
)
from moola_mlflow.tracking.names import Tags, VersionTags
from moola_mlflow.tracking.recovery import heartbeat, relocation, stale_runs
from moola_mlflow.tracking.registry import models, promotion
from moola_mlflow.tracking.store import STORE_FAILURES, first_line, shown_uri

PACKAGE = "moola-mlflow"
LITTLE_DISK_BYTES = 2e9
NEVER_BEGAN_S = 600
"""Age at which a RUNNING run counts as dead, if the launcher made it and no process of this project touched it."""
WITH_ARTIFACTS = (
    *("main", "data", "features", "rules", "label"),
    *("pretrain", "finetune", "sweep", "promote", "detect", "evaluate", "compare"),
)
"""Commands whose finished runs always have artifacts. A trial has some only if it was the best so far."""
NEWEST = 500
"""Number of runs that are checked."""


@dataclass(frozen=True)
class Check:
    """One thing that was checked. ``cure`` is empty if all is well."""

    what: str
    cure: str = ""
    fix: Callable[[], None] | None = None
    """Does what the cure says, if nobody has to choose."""


def examine_store() -> Iterator[Check]:
    """Yield what is found in the environment and the store. Without a store that answers, stop there."""
    yield from _environment()
    yield _disk()
    path = store_file(mlflow.get_tracking_uri())
    if path is not None and not path.exists():
        yield Check(f"no store at {path} yet: the first command that has a run makes it")
        yield from _folders_of_runs()
        yield from (_forgotten(folder, run_id) for run_id, folder in _of_this_store().items())
        return
    try:
        runs = _runs()
    except STORE_FAILURES as e:
        yield Check(
            f"the store '{shown_uri()}' does not answer: {first_line(e)}",
            "start its server, or correct MLFLOW_TRACKING_URI (sqlite:///mlflow.db is the default)",
        )
        return
    yield _store(len(runs))
    yield from _folders_of_runs()
    yield from _stale(runs)
    yield from _unsent(runs)
    yield from _lost({run.info.run_id for run in runs})
    yield from _artifacts(runs)
    yield from _aliases()


def _environment() -> Iterator[Check]:
    try:
        required = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        yield Check(f"{PACKAGE} is not installed in {sys.prefix}", _in_checkout() or f"pip install {PACKAGE}")
        return
    wrong, needed = [], []
    for one in map(Requirement, required):
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue  # an extra, which may be missing
        installed = _version(one.name)
        if installed is None or not one.specifier.contains(installed, prereleases=True):
            wrong.append(f"{one.name} {installed or 'missing'} instead of {one.specifier or 'any version'}")
            needed.append(shlex.quote(f"{one.name}{one.specifier}"))
    if wrong:
        # However this package was installed, pip can correct the others. It need not be able to fetch this one.
        cure = ", or ".join(filter(None, (_in_checkout(), f"pip install {' '.join(needed)}")))
        yield Check(f"packages outside their ranges: {', '.join(wrong)}", cure)
    else:
        yield Check(f"Python {sys.version.split()[0]}, every package in its range")


def _in_checkout() -> str:
    """Return how to install what a checkout needs, empty if the package runs from an installed copy."""
    folder = Path(__file__).resolve().parents[3]
    if not (folder / "Makefile").is_file():
        return ""
    return "make setup" if folder == Path.cwd() else f"make -C {shlex.quote(str(folder))} setup"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package).split("+")[0]  # torch appends its build
    except importlib.metadata.PackageNotFoundError:
        return None


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    what = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    cure = "free some space: a pre-training of 24 epochs keeps about 50 MB" if free < LITTLE_DISK_BYTES else ""
    return Check(what, cure)


def _runs() -> list[Run]:
    client = mlflow.MlflowClient()
    experiments = [one.experiment_id for one in client.search_experiments()]
    return list(client.search_runs(experiments, max_results=NEWEST, order_by=["attributes.start_time DESC"]))


def _store(num_runs: int) -> Check:
    """Check that the store can be written. A SQLite store is tried, without changing it."""
    what, uri = f"store {shown_uri()}: {num_runs} runs checked", mlflow.get_tracking_uri()
    if not uri.startswith("sqlite:///"):
        return Check(what)
    path = Path(uri.removeprefix("sqlite:///"))
    problems = [
        f"{place} is read-only" for place in (path, path.parent, path.parent / "mlruns") if _is_read_only(place)
    ]
    if not problems:
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("ROLLBACK")
        except sqlite3.Error as e:
            problems = [str(e)]
    if not problems:
        return Check(what)
    return Check(
        f"{what}, but nothing can be written: {'; '.join(problems)}",
        "make it writable, end the process that locks it, or set MLFLOW_TRACKING_URI to another store",
    )


def _is_read_only(place: Path) -> bool:
    return place.exists() and not os.access(place, os.W_OK)


def _folders_of_runs() -> Iterator[Check]:
    """Yield the run folders that cannot be read, and the journals with damaged lines."""
    for folder, problem in run_folder.unreadable_folders().items():
        yield Check(
            f"the run folder {folder} cannot be read: {problem}", "correct what the line says, or move the folder away"
        )
    for folder in run_folder.run_folders():
        with suppress(FileNotFoundError):
            if damaged := damaged_lines(folder):
                yield Check(
                    f"{describe_lines(damaged)} of the journal in {folder} cannot be read",
                    "the run is not whole and stays so; move the folder away when you have what you need of it",
                )


def _stale(runs: list[Run]) -> Iterator[Check]:
    """Yield the runs with status RUNNING, and whether a process works on them."""
    folders = _folders()
    for run in runs:
        if run.info.status != "RUNNING":
            continue
        run_id, name = run.info.run_id, f"run {run.info.run_id} ({run.info.run_name})"
        age_s = time.time() - run.info.start_time / 1000
        folder = folders.get(run_id)
        if folder and not origin.belongs(run, folder):
            folder = None
        alive = True if folder and _is_held(folder) else heartbeat.is_worked_on(run)
        if alive:
            yield Check(f"{name} is running")
        elif alive is False or (folder and run_folder.is_stale(folder)):
            yield Check(
                f"{name} says RUNNING, but its process is gone",
                "mark it KILLED; its checkpoints stay",
                _closer(run_id, "KILLED"),
            )
        elif folder and (ended := read_history(folder).status):
            if not count_unsent(folder):  # otherwise the check of unsent events reports it
                yield Check(f"{name} says RUNNING, but it ended {ended}", f"moola sync {folder}")
        elif Tags.STAGE not in run.data.tags and age_s > NEVER_BEGAN_S:
            yield Check(
                f"{name} says RUNNING for {age_s / 3600:.1f} h, but it never began",
                "mark it FAILED",
                _closer(run_id, "FAILED"),
            )
        else:
            yield Check(f"{name} says RUNNING; it was started in another folder or on another machine, look there")


def _folders() -> dict[str, Path]:
    """Return the run folders by the runs' ids in the store. A run that began offline has another folder name."""
    return {id_in_store(folder): folder for folder in run_folder.run_folders()}


def _is_held(folder: Path) -> bool:
    """Return whether a process of this machine holds the folder, or another machine worked on it just now."""
    try:
        run_folder.check_run_folder_free(folder)
    except UserError:
        return True
    return False


def _unsent(runs: list[Run]) -> Iterator[Check]:
    """Yield the ended runs of this store that it lacks a part of."""
    status = {run.info.run_id: run.info.status for run in runs}
    for folder in run_folder.run_folders():
        sent = Sent.read(folder)
        if sent is None or sent.uri != shown_uri() or _is_held(folder):
            continue
        # Another process may have set the status already, when it found this run's process dead.
        known = status.get(sent.run_id)
        missing = [
            event
            for event in unsent_events(folder)
            if event.kind != "status" or known not in (None, event.record["status"])
        ]
        if missing:
            yield Check(f"the store lacks {len(missing)} events of {folder}", f"moola sync {folder}")
        if held := list(held_events(folder)):
            kinds = ", ".join(sorted({event.kind for event in held}))
            yield Check(
                f"the store did not take {len(held)} events of {folder} ({kinds})",
                f"moola sync {folder} tries them again, and says why",
            )


def _of_this_store() -> dict[str, Path]:
    """Return the folders whose runs were sent to this store, by the runs' ids in it."""
    found = {folder: Sent.read(folder) for folder in run_folder.run_folders()}
    return {sent.run_id: folder for folder, sent in found.items() if sent and sent.run_id and sent.uri == shown_uri()}


def _lost(known: set[str]) -> Iterator[Check]:
    """Yield the folders whose runs were in this store, which has them no longer. ``known``: runs that it has."""
    for run_id, folder in _of_this_store().items():
        with suppress(*STORE_FAILURES):  # a store that fails now says nothing about the run
            if run_id not in known and not _is_held(folder) and is_forgotten(run_id):
                yield _forgotten(folder, run_id)


def _forgotten(folder: Path, run_id: str) -> Check:
    return Check(
        f"the store has lost run {run_id}, whose folder is {folder}",
        f"moola sync {folder} --as-new makes it again, under a new id; remove the folder if you do not need the run",
    )


def _closer(run_id: str, status: str) -> Callable[[], None]:
    def close() -> None:
        stale_runs.close_stale_runs()
        client = mlflow.MlflowClient()
        if client.get_run(run_id).info.status == "RUNNING":
            client.set_tag(run_id, Tags.NOTE, "No process was working on this run; doctor ended it.")
            client.set_terminated(run_id, status)

    return close


def _artifacts(runs: list[Run]) -> Iterator[Check]:
    """Yield the finished runs whose artifact folder is not where the store says."""
    lost = [
        folder for run in runs if (folder := _folder(run)) and run.info.status == "FINISHED" and not folder.is_dir()
    ]
    # A store copied together from several places needs one correction for each.
    for old in sorted({folder.parents[2] for folder in lost}):
        missing = [folder for folder in lost if folder.parents[2] == old]
        new = relocation.new_root(missing[0], mlflow.get_tracking_uri())
        yield Check(
            f"the artifacts of {len(missing)} finished runs are missing, for instance {missing[0]}",
            f"the project was moved: change the paths in the store to {new} (a copy of the store is kept)"
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
    if parsed.scheme not in ("", "file") or run.data.tags.get(Tags.STAGE) not in WITH_ARTIFACTS:
        return None
    return Path(unquote(parsed.path))


def _remover(model: str, alias: str) -> Callable[[], None]:
    def remove() -> None:
        mlflow.MlflowClient().delete_registered_model_alias(model, alias)

    return remove


def _way_back(name: str, alias: str, version: str) -> str:
    promote = f"moola promote --model {name} --alias {alias} --version"
    accept = f"{promote} {version} --force true, which keeps this one and says so"
    before = promotion.last_promoted(name, version)
    return f"{promote} {before}, which goes back; or {accept}" if before else accept


def _aliases() -> Iterator[Check]:
    client = mlflow.MlflowClient()
    for model in client.search_registered_models():
        for alias, version in sorted(model.aliases.items()):
            try:
                found = client.get_model_version(model.name, str(version))
            except MlflowException as e:
                if e.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                yield Check(
                    f"alias '{alias}' of {model.name} points to version {version}, which does not exist",
                    f"remove the alias, then moola promote --model {model.name} --version VERSION --alias {alias}",
                    _remover(model.name, alias),
                )
                continue
            if alias != models.CANDIDATE and not models.is_regular(found):
                yield Check(
                    f"alias '{alias}' of {model.name} was moved by hand to version {version} "
                    f"(gates: {found.tags.get(VersionTags.GATES, 'never evaluated')})",
                    _way_back(model.name, alias, str(version)),
                )
