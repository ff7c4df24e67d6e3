"""sync: send everything that the store lacks of a run, from the run's folder on disk."""

from __future__ import annotations

import ipaddress
import os
from contextlib import nullcontext
from pathlib import Path

import mlflow
from mlflow.utils.credentials import get_default_host_creds
from urllib3.util import parse_url

from moola_mlflow.core import Interrupts, NoKeys, UserError, is_launched, printable
from moola_mlflow.tracking import (
    DIED,
    JOURNAL_FILE,
    SENT_FILE,
    Run,
    Sent,
    check_run,
    check_run_folder_free,
    hold_run_folder,
    run_name,
    send_missing,
    shown_uri,
)


def run(config: NoKeys, preset: str, interrupts: Interrupts, run_dir: str = "") -> None:
    """Send the events, files and models of a run that the store lacks. A second time sends nothing."""
    launched = is_launched()
    with Run.start("sync", run_name("sync", "run", 0)) if launched else nullcontext() as active:
        folder = _folder(run_dir)
        check_run_folder_free(folder)
        with hold_run_folder(folder):
            summary = _sync(folder, choose_store=not launched)
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


def _sync(folder: Path, choose_store: bool) -> str:
    sent = Sent.read(folder)
    if sent is None:
        raise UserError(
            f"run_dir='{folder}' has no {SENT_FILE}: an early version made it and sent everything at once, so there is "
            "nothing to send"
        )
    if choose_store and "MLFLOW_TRACKING_URI" not in os.environ and sent.uri.startswith("http"):
        _check_login(folder, sent.uri)
        mlflow.set_tracking_uri(sent.uri)  # the store that the run was meant for
    done = send_missing(folder, sent, check_run(sent.run_id), DIED)
    return f"Run {done.run_id} is whole in '{shown_uri()}' and {done.status}: {done.num_missing} events were missing"


def _check_login(folder: Path, uri: str) -> None:
    """Refuse to send the user's login to an address that only the folder names. Anybody may have made the folder.

    MLflow sends the login of the environment, or of its file, to any server. A server on this machine is safe, and so
    is a tunnel that begins here. Raises: UserError.
    """
    login = get_default_host_creds(uri)
    if not any((login.username, login.password, login.token, login.auth, login.aws_sigv4, login.client_cert_path)):
        return
    try:
        host = (parse_url(uri).host or "").strip("[]")  # read it as the HTTP client will
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise UserError(
        f"run_dir='{folder}': the folder names the server {printable(uri)!r}, and MLflow would send your login there "
        "(MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_TOKEN and others, or ~/.mlflow/credentials). If it is your server, "
        "set MLFLOW_TRACKING_URI to it; else remove the login"
    )
