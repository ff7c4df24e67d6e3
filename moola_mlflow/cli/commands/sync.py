"""sync: send everything that the store lacks of a run, from the run's folder on disk."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import mlflow

from moola_mlflow.core import Interrupts, NoKeys, TrainingError, UserError, is_launched, is_true, printable
from moola_mlflow.tracking import (
    DIED,
    JOURNAL_FILE,
    SENT_FILE,
    STORE_FAILURES,
    Run,
    Sent,
    check_run,
    check_run_folder_free,
    first_line,
    hold_run_folder,
    remake_run,
    run_name,
    send_missing,
    shown_uri,
)


def run(
    config: NoKeys, preset: str, interrupts: Interrupts, run_dir: str = "", server: str = "", as_new: str = "false"
) -> None:
    """Send the events, files and models of a run that the store lacks. A second time sends nothing."""
    launched, anew = is_launched(), is_true("as_new", as_new)
    if server:
        _check_server(server, launched)
        mlflow.set_tracking_uri(server)
    with Run.start("sync", run_name("sync", "run", 0)) if launched else nullcontext() as active:
        folder = _folder(run_dir)
        check_run_folder_free(folder)
        with hold_run_folder(folder):
            summary = _sync(folder, launched or bool(server), anew)
        if active is not None:
            active.note(summary)
        print(summary, flush=True)


def _folder(run_dir: str) -> Path:
    """Return the run's folder. Raises: UserError."""
    if not run_dir:
        raise UserError("sync needs the folder of a run: moola sync .moola/runs/RUN_ID")
    folder = Path(run_dir)
    if not (folder / JOURNAL_FILE).is_file():
        raise UserError(f"run_dir='{run_dir}' is not the folder of a run: it has no {JOURNAL_FILE}")
    return folder


def _check_server(server: str, launched: bool) -> None:
    """Refuse a server that is none, or another than the launcher's. Raises: UserError."""
    if not server.startswith(("http://", "https://")):
        raise UserError(f"server={printable(server)!r}; allowed: an address that begins with http:// or https://")
    if launched and server.rstrip("/") != mlflow.get_tracking_uri().rstrip("/"):
        raise UserError(
            f"server={printable(server)!r}, but the launcher uses {shown_uri()!r}; set MLFLOW_TRACKING_URI for "
            "`mlflow run`, or use moola sync"
        )


def _sync(folder: Path, chosen: bool, anew: bool) -> str:
    """Send a run's folder. ``chosen``: the user has named the store, or the launcher. ``anew``: to a new run."""
    sent = Sent.read(folder)
    if sent is None:
        raise UserError(
            f"run_dir='{folder}' has no {SENT_FILE}: an early version made it and sent everything at once, so there is "
            "nothing to send"
        )
    if not chosen and "MLFLOW_TRACKING_URI" not in os.environ and sent.uri.startswith("http"):
        _confirm(folder, sent.uri)
        mlflow.set_tracking_uri(sent.uri)
    gone = _remake(folder, sent) if anew else []
    done = send_missing(folder, sent, check_run(sent.run_id), DIED)
    said = [f"{done.num_missing} events were missing"]
    if anew:
        said.append(f"It was made again from the folder of run {folder.name}")
    if gone:
        said.append(f"These files are no longer in the folder: {', '.join(map(printable, sorted(gone)))}")
    if done.left_out:
        said.append(f"Left out, because the folder came from elsewhere: {', '.join(map(printable, done.left_out))}")
    whole = "" if gone or done.left_out else "whole "
    return f"Run {done.run_id} is {whole}in '{shown_uri()}' and {done.status}: {'. '.join(said)}"


def _remake(folder: Path, sent: Sent) -> list[str]:
    """Make a run again that the store has lost. Return the artifacts that nobody has any more.

    Raises: UserError if the store knows it; TrainingError if the store fails.
    """
    check_run("")
    try:
        return remake_run(folder, sent)
    except STORE_FAILURES as e:
        raise TrainingError(
            f"run {folder.name} could not be made again in '{shown_uri()}': {first_line(e)}. Try again: "
            f"moola sync {folder} --as-new"
        ) from e


def _confirm(folder: Path, uri: str) -> None:
    """Ask the user whether to send to a server that only the folder names. Anybody may have made the folder.

    MLflow would send the user's login there, and the server would say where files go. Raises: UserError unless the user
    says yes on a terminal.
    """
    shown = printable(uri)
    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        answer = input(f"{folder} names the server {shown!r}. Send the run and your login there? [y/N] ")
        if answer.strip().lower() in ("y", "yes"):
            return
    raise UserError(
        f"run_dir='{folder}' names the server {shown!r}, and a folder may come from anybody. If it is your server, set "
        f"MLFLOW_TRACKING_URI to it, or give --server {shown}"
    )
