"""sync: what the store missed of a run while it did not answer, from the run's folder on disk."""

from __future__ import annotations

import ipaddress
import os
from contextlib import nullcontext
from pathlib import Path

import mlflow
from mlflow.utils.credentials import get_default_host_creds
from urllib3.util import parse_url

from moola_mlflow.core import Interrupts, NoKeys, TrainingError, UserError, is_launched, printable
from moola_mlflow.tracking import (
    JOURNAL_FILE,
    SENT_FILE,
    STORE_FAILURES,
    Journal,
    Outbox,
    Replayer,
    Run,
    Sent,
    check_run,
    check_run_folder_free,
    count_unsent,
    first_line,
    hold_run_folder,
    read_events,
    read_journal,
    run_name,
    shown_uri,
)

DIED = "The process died without a word."


def run(config: NoKeys, preset: str, interrupts: Interrupts, run_dir: str = "") -> None:
    """Bring a run's journal to the store, and its files and models with it; nothing is doubled by doing it again."""
    launched = is_launched()
    with Run("sync", run_name("sync", "run", 0)) if launched else nullcontext() as active:
        folder = _folder(run_dir)
        check_run_folder_free(folder)
        with hold_run_folder(folder):
            told = _sync(folder, choose=not launched)
        if active is not None:
            active.note(told)
        print(told, flush=True)


def _folder(run_dir: str) -> Path:
    """Return the folder that is meant. Raises: UserError."""
    if not run_dir:
        raise UserError("sync needs the folder of a run: moola sync .moola/runs/RUN_ID")
    folder = Path(run_dir)
    if not (folder / JOURNAL_FILE).is_file():
        raise UserError(f"run_dir='{run_dir}' is not the folder of a run: there is no {JOURNAL_FILE} in it")
    return folder


def _sync(folder: Path, choose: bool) -> str:
    sent = Sent.read(folder)
    if sent is None:
        raise UserError(
            f"run_dir='{folder}' has no {SENT_FILE}: its run was at work in a version that sent everything at once; "
            "there is nothing to send"
        )
    if choose and "MLFLOW_TRACKING_URI" not in os.environ and sent.uri.startswith("http"):
        _check_login(folder, sent.uri)
        mlflow.set_tracking_uri(sent.uri)  # where the run was meant to go
    stored = check_run(sent.run_id)
    missed, ended = count_unsent(folder), read_journal(folder).status
    book = Journal(folder)
    try:
        if not ended:
            ended = "KILLED"
            book.append({"kind": "status", "status": ended, "note": DIED})
        sent.uri, sent.offset = shown_uri(), min(sent.offset, book.size)
        replayer = Replayer(mlflow.MlflowClient(), folder, sent.run_id, stored)
        box = Outbox(book, replayer, sent, tries=1)
        box.close()
    finally:
        book.close()
    if box.pending:
        raise TrainingError(
            f"{count_unsent(folder)} of {missed} events of {folder} are still not in '{shown_uri()}': {box.trouble}; "
            f"try again later: moola sync {folder}"
        )
    try:
        _make_true(folder, replayer)
    except STORE_FAILURES as e:
        raise TrainingError(f"all events are sent, and then '{shown_uri()}' failed: {first_line(e)}; try again") from e
    if sent.held:
        raise TrainingError(
            f"the store '{shown_uri()}' does not take {len(sent.held)} of {missed} events of {folder}, and has the "
            f"rest: {'; '.join(sorted(set(box.set_aside.values())))}; when it does: moola sync {folder}"
        )
    if box.refused:
        raise TrainingError(
            f"the store '{shown_uri()}' refuses {len(box.refused)} of {missed} events of {folder}, and has the rest: "
            f"{'; '.join(map(first_line, box.refused))}"
        )
    return f"Run {replayer.run_id} is whole in '{shown_uri()}' and {ended}: {missed} events were missing"


def _check_login(folder: Path, uri: str) -> None:
    """Refuse to send a login to an address that a folder, and not the user, has named: it may be anybody's folder.

    MLflow sends what it finds in the environment, or in its file, to whatever server it talks to. On this machine
    that is harmless, which is also where a tunnel begins. Raises: UserError.
    """
    login = get_default_host_creds(uri)
    if not any((login.username, login.password, login.token, login.auth, login.aws_sigv4, login.client_cert_path)):
        return
    try:
        host = (parse_url(uri).host or "").strip("[]")  # as it will be read by whoever connects
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise UserError(
        f"run_dir='{folder}': the folder names the server {printable(uri)!r}, and there is a login that MLflow would "
        "send there (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_TOKEN or the like, or ~/.mlflow/credentials): a folder "
        "does not choose who gets a login; if that is your server, set MLFLOW_TRACKING_URI to it, else take the "
        "login away"
    )


def _make_true(folder: Path, replayer: Replayer) -> None:
    """Remove what was made twice, and set the status again where something else has been written over it."""
    events = list(read_events(folder))
    replayer.remove_doubles(event.record["key"] for event in events if event.kind == "child")
    last = [event for event in events if event.kind == "status"][-1]
    if replayer.client.get_run(replayer.run_id).info.status != last.record["status"]:
        replayer.client.set_terminated(replayer.run_id, last.record["status"], last.at_ms)
