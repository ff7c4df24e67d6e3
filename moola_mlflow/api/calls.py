"""Call a command from Python: keys as keywords, quiet, and tracked or not."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moola_mlflow.cli import call_command
from moola_mlflow.core import COMMANDS, UserError, dotted_keys, write_whole
from moola_mlflow.tracking import untracked

MARK = "moola_results.json"
"""File that marks a folder as the results of a call without tracking. Only such a folder is ever emptied."""
IN_MEMORY = Path(".moola/inputs")
"""Where tables in memory that a tracked call read are kept: the run names them as its inputs."""
REGISTER = "registry.name"


@dataclass(frozen=True)
class Call:
    """A command to run, and how: where its results go, whether MLflow tracks it, whether it prints."""

    command: str
    keys: Mapping[str, Any]
    """What the caller gave as keywords: short parameters, and keys with a double underscore for the dot."""
    out: str | Path | None = None
    overwrite: bool = False
    track: bool = True
    verbose: bool = False

    def run(self, own: Mapping[str, Any], inputs: Callable[[Path], Mapping[str, str]]) -> Any:
        """Run the command and return its outcome.

        ``own``: the parameters that arguments of the function set. ``inputs``: writes what is in memory to a folder,
        and returns the parameters that name it.

        Raises: UserError; TrainingError; GateError.
        """
        given = {**dotted(self.keys), **{name: value for name, value in own.items() if value is not None}}
        with quiet(self.verbose):
            if self.track:
                return call_command(self.command, {**given, **self._copies(), **inputs(IN_MEMORY)})
            folder = self._folder(given)
            try:
                with untracked(folder):
                    return call_command(self.command, {**given, **self._unregistered(given), **inputs(folder)})
            finally:
                if self.out is not None:
                    with contextlib.suppress(OSError):
                        self._note_results(folder)

    def _copies(self) -> dict[str, Any]:
        """Return the parameters of a tracked call that say where its results are copied to. Raises: UserError."""
        if self.out is None:
            return {}
        if self.command in ("pretrain", "finetune"):
            raise UserError(
                f"out='{self.out}': a tracked {self.command} keeps its files with its run; leave out `out`, or set "
                "track=False"
            )
        return {"out": str(self.out), "overwrite": str(self.overwrite).lower()}

    def _unregistered(self, given: Mapping[str, Any]) -> dict[str, str]:
        """Return the parameters that keep a call away from the registry. Raises: UserError if a name is given."""
        if REGISTER not in dotted_keys(COMMANDS[self.command]):
            return {}
        if name := given.get("register") or given.get(REGISTER):
            raise UserError(f"register='{name}': nothing is registered with track=False; leave one of them out")
        return {REGISTER: "none"}

    def _folder(self, given: Mapping[str, Any]) -> Path:
        """Return an empty folder for the results: the one asked for, or a temporary one. Raises: UserError."""
        if self.out is None:
            return Path(tempfile.mkdtemp(prefix=f"moola-{self.command}-"))
        folder = Path(self.out).expanduser()
        try:
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                self._empty(folder, given)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / MARK).write_text(json.dumps({"command": self.command}) + "\n", encoding="utf-8")
        except OSError as e:
            raise UserError(f"out='{folder}' cannot be written: {e}; give a folder you may write to") from e
        return folder

    def _note_results(self, folder: Path) -> None:
        """Note what the call has written to its folder: a later call replaces that, and nothing else."""
        names = sorted(path.name for path in folder.iterdir() if path.name != MARK)
        write_whole(folder / MARK, json.dumps({"command": self.command, "names": names}) + "\n")

    def _empty(self, folder: Path, given: Mapping[str, Any]) -> None:
        """Remove the results of an earlier call. Raises: UserError for a folder with anything else."""
        try:
            mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
            made_by, names = mark["command"], {MARK, *mark.get("names", ())}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            made_by, names = None, set()
        if made_by != self.command:
            holds = f"results of {made_by}" if made_by else "other files"
            raise UserError(f"out='{folder}' holds {holds}; give a new folder, nothing was changed")
        if not self.overwrite:
            raise UserError(f"out='{folder}' holds results; give another folder, or replace them with overwrite=True")
        if others := sorted(path.name for path in folder.iterdir() if path.name not in names):
            raise UserError(
                f"out='{folder}' also holds '{others[0]}', which no finished call has noted as its result; move it, or "
                "give another folder"
            )
        paths = [Path(text).resolve() for text in given.values() if isinstance(text, str) and Path(text).exists()]
        if read := [path for path in paths if path.is_relative_to(folder.resolve())]:
            raise UserError(f"out='{folder}' holds '{read[0].name}', which is read; give another folder")
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextlib.contextmanager
def quiet(verbose: bool) -> Iterator[None]:
    """Keep what is printed inside this block off the screen, unless ``verbose``."""
    if verbose:
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def dotted(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a call as the command line names them: a double underscore is the dot of a key.

    >>> dotted({"encoder__hidden": 64, "epochs": 3})
    {'encoder.hidden': 64, 'epochs': 3}
    """
    return {name.replace("__", "."): value for name, value in keys.items()}
