"""Find an interrupted run on disk, and what it needs to continue as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moola_mlflow.core import PretrainKeys, UserError, is_launched, make_config, nearest_name, read_preset
from moola_mlflow.models import Checkpointer, LoadedCheckpoint
from moola_mlflow.tracking import run_folder
from moola_mlflow.tracking.delivery import Sent, read_history
from moola_mlflow.tracking.names import Artifacts

IGNORED = ("tracking.resume", "tracking.allow_drift", "tracking.experiment")

SHOWN = 6
"""Keys that a message names of a run that does not fit."""


@dataclass(frozen=True)
class ResumePoint:
    """An interrupted run, its latest checkpoint, and how the configuration has changed since."""

    run_id: str
    folder: Path
    checkpoint: LoadedCheckpoint
    data_sha256: str
    fork: bool = False
    """Whether a new run continues from the checkpoint, instead of the run itself."""
    drift: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """Keys whose values have changed, with the value then and now."""

    def check_data(self, sha256: str) -> None:
        """Refuse to continue the run on other bars. Raises: UserError."""
        if not self.fork and self.data_sha256 and sha256 != self.data_sha256:
            raise UserError(
                f"run {self.run_id} was trained on bars with SHA-256 {self.data_sha256[:12]}, these have "
                f"{sha256[:12]}; give the same bars, or continue in a new run with resume=new:{self.run_id}"
            )

    def drift_text(self) -> str:
        """Return what has changed in the configuration, in one line."""
        return "; ".join(f"{key}: {then} -> {now}" for key, (then, now) in self.drift.items())


def find_resume_point(config: PretrainKeys, root: Path = run_folder.RUNS) -> ResumePoint | None:
    """Return the run to continue, as ``tracking.resume`` asks, or None for a new run.

    ``auto`` takes the newest unfinished pre-training of the same configuration, and a new run if none was interrupted.

    Raises: UserError if the run to continue is missing, damaged, in use, or of another configuration or data; for
    ``auto`` also if runs were interrupted and none fits.
    """
    wanted = config.tracking.resume
    if wanted == "never":
        return None
    kind, _, run_id = wanted.partition(":")
    if kind not in ("auto", "new"):
        kind, run_id = "given", wanted
    if not run_id:
        found = _newest(config, root)
        if not found and kind == "new":
            raise UserError(
                f"resume=new: no unfinished pre-training of this configuration in {root}; name a run: resume=new:RUN_ID"
            )
        if not found:
            _refuse_others(config, root)
            return None
        run_id = found.name
    folder = _folder_of(root, run_id)
    run_id = folder.name
    if not (folder / "checkpoints").is_dir():
        there = [path.name for path in _with_checkpoints(root)]
        raise UserError(
            f"resume: no checkpoints of run '{run_id}' in {root}{nearest_name(run_id, there)} "
            + (f"Runs with checkpoints: {', '.join(there[:5])}" if there else "Continue a run where it was trained.")
        )
    if kind != "new":
        run_folder.check_run_folder_free(folder)
    drift = _drift(_config(folder), config)
    refused = {key for key in drift if key not in _allowed(config)}
    if refused and kind != "new":
        shown = "; ".join(f"{key} was {drift[key][0]}, is {drift[key][1]}" for key in sorted(refused))
        keys = ",".join(sorted(refused))
        raise UserError(
            f"run {run_id} was started with another configuration: {shown}. Use its own with "
            f"config={folder / Artifacts.CONFIG}, allow the change with tracking.allow_drift={keys}, "
            f"or continue in a new run with resume=new:{run_id}"
        )
    checkpoint = Checkpointer(folder / "checkpoints").load_latest()
    history, done = read_history(folder), checkpoint.state["epoch"] + 1
    if history.status == "FINISHED" and _is_complete(config, checkpoint.state):
        raise UserError(
            f"run {run_id} is finished: all {done} epochs are trained. To train longer, raise "
            "trainer.epochs" + ("" if kind == "new" else " and allow it with tracking.allow_drift=trainer.epochs")
        )
    return ResumePoint(run_id, folder, checkpoint, history.data_sha256, kind == "new", drift)


def _is_complete(config: PretrainKeys, state: dict[str, Any]) -> bool:
    """Return whether a checkpoint holds all the steps, or all the epochs, of a configuration."""
    if config.trainer.steps:
        return bool(state["scheduler"]["last_epoch"] >= config.trainer.steps)
    return bool(state["epoch"] + 1 >= config.trainer.epochs)


def _newest(config: PretrainKeys, root: Path) -> Path | None:
    """Return the folder of the unfinished run with the same configuration and the newest checkpoint."""
    for folder in _with_checkpoints(root):
        try:
            if _drift(_config(folder), config):
                continue
            run_folder.check_run_folder_free(folder)
        except UserError:
            continue
        if read_history(folder).status != "FINISHED":
            return folder
    return None


def _refuse_others(config: PretrainKeys, root: Path) -> None:
    """Refuse to begin anew while other runs wait: a key that was mistyped would cost a training.

    Raises: UserError with each interrupted run, why it does not fit, and the command that goes on with it.
    """
    lines = []
    for folder in _with_checkpoints(root):
        if read_history(folder).status == "FINISHED":
            continue
        try:
            run_folder.check_run_folder_free(folder)
        except UserError:
            continue
        lines += [
            f"- run {folder.name}: {_why_not(config, folder)}",
            f"  {run_folder.resume_command(folder, is_launched())}",
        ]
    if lines:
        raise UserError(
            "resume=auto: no interrupted run has this configuration. These were interrupted; each with why it does not "
            "fit, and the command that goes on with it:\n"
            + "\n".join([*lines, "To begin a new run, leave resume out."])
        )


def _why_not(config: PretrainKeys, folder: Path) -> str:
    try:
        drift = _drift(_config(folder), config)
    except UserError as e:
        return f"its configuration cannot be read: {e}"
    shown = [f"{key} was {then}, is {now}" for key, (then, now) in sorted(drift.items())]
    return "; ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more keys" if len(shown) > SHOWN else "")


def _folder_of(root: Path, run_id: str) -> Path:
    """Return the folder of a run. It has another name if the run began offline, or was made again in the store."""
    if (root / run_id).is_dir():
        return root / run_id
    notes = ((folder, Sent.read(folder)) for folder in run_folder.run_folders(root))
    return next((folder for folder, sent in notes if sent and sent.run_id == run_id), root / run_id)


def _with_checkpoints(root: Path) -> list[Path]:
    times = {folder: Checkpointer(folder / "checkpoints").saved_at() for folder in run_folder.run_folders(root)}
    return sorted((folder for folder, at in times.items() if at), key=lambda folder: times[folder] or 0.0, reverse=True)


def _config(folder: Path) -> PretrainKeys:
    return make_config(PretrainKeys, read_preset(folder / Artifacts.CONFIG), {})


def _drift(then: PretrainKeys, now: PretrainKeys) -> dict[str, tuple[Any, Any]]:
    before, after = then.flat(), now.flat()
    return {key: (before[key], after[key]) for key in after if key not in IGNORED and before[key] != after[key]}


def _allowed(config: PretrainKeys) -> Iterable[str]:
    return [key.strip() for key in config.tracking.allow_drift.split(",")]
