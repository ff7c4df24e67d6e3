"""A stand-in for conda: `mlflow run .` works in the environment that is active, checked against conda.yaml.

MLflow takes conda for every project that names a `conda_env`, and no setting changes that. Where there is no conda,
`make setup` puts a `conda` that calls this file into the environment's bin folder, and a hook at the top of `activate`,
the file that MLflow sources as `source activate mlflow-<sha1 of conda.yaml>` before an entry point's command.

The versions are checked in the hook and not at `conda env create`: MLflow makes its run before it calls conda, and a
conda that fails there leaves the run RUNNING for ever, where a failing `activate` ends it as FAILED.

Standard library only: it has to speak up in an environment that lacks everything.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

MARK = "moola-conda-stand-in"
ENV_NAME = re.compile(r"mlflow-[0-9a-f]{40}")
HOOK = re.compile(rf"# >>> {MARK}.*?# <<< {MARK} <<<\n", re.DOTALL)
HELP = """\
This is not conda. It stands in for conda so that `mlflow run .` uses the active Python environment as it is, after
checking it against conda.yaml. It answers `conda env list --json` and `conda env create -n mlflow-<sha1> --file FILE`
and nothing else. A real conda on PATH, or named by CONDA_EXE or MLFLOW_CONDA_HOME, is used instead of it.
"""


def say(text: str) -> None:
    print(f"conda stand-in: {text}", file=sys.stderr, flush=True)


def wanted_versions(conda_yaml: str) -> tuple[str, dict[str, str]]:
    """Return the Python version and the pip pins of a conda.yaml.

    Raises:
        ValueError: a dependency that is not an exact pin, so that nobody can say whether it is met.
    """
    python, pins, section = "", {}, ""
    for raw in conda_yaml.splitlines():
        if key := re.match(r"(\w+):", raw):
            section = key[1]
        line = raw.split(" #")[0].strip()
        if section != "dependencies" or not line.startswith("- "):
            continue
        item = line[2:].strip().strip("'\"")
        if match := re.fullmatch(r"python={1,2}([\d.]+)", item):
            python = match[1]
        elif match := re.fullmatch(r"([A-Za-z0-9][\w.-]*)==([\w.+!-]+)", item):
            pins[match[1]] = match[2]
        elif item not in ("pip", "pip:"):
            raise ValueError(f"{item!r} is not an exact pin (name==version)")
    if not python:
        raise ValueError("no python=VERSION is listed under dependencies")
    return python, pins


def differences(conda_yaml: str) -> list[str]:
    """Return one line for each way in which the running interpreter's environment is not what conda.yaml asks for.

    Python may differ in its patch number, which the packages' wheels do not depend on.
    """
    python, pins = wanted_versions(conda_yaml)
    lines = []
    minor = ".".join(python.split(".")[:2])
    if minor != f"{sys.version_info.major}.{sys.version_info.minor}":
        lines.append(f"python: found {platform.python_version()}, wanted {minor}")
    for name, wanted in pins.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            lines.append(f"{name}: not installed, wanted {wanted}")
            continue
        # A build's local label does not break a pin that has none: torch 2.13.0+cpu is torch==2.13.0.
        if found != wanted and found.partition("+")[0] != wanted:
            lines.append(f"{name}: found {found}, wanted {wanted}")
    return lines


def conda_yaml_of(env_name: str, folder: Path) -> Path | None:
    """Return the YAML file in `folder` that MLflow named the environment after: the name is its content's SHA-1."""
    for path in sorted(folder.glob("*.y*ml")):
        if env_name == f"mlflow-{hashlib.sha1(path.read_text(encoding='utf-8').encode()).hexdigest()}":
            return path
    return None


def real_conda(environ: Mapping[str, str]) -> Path | None:
    """Return the conda that this file must give way to, or None: CONDA_EXE, MLFLOW_CONDA_HOME, then PATH."""
    candidates = [Path(environ["CONDA_EXE"])] if environ.get("CONDA_EXE") else []
    if environ.get("MLFLOW_CONDA_HOME"):
        candidates.append(Path(environ["MLFLOW_CONDA_HOME"], "bin", "conda"))
    candidates += [Path(folder, "conda") for folder in environ.get("PATH", "").split(os.pathsep) if folder]
    return next((path for path in candidates if _is_executable(path) and not _is_standin(path)), None)


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _is_standin(path: Path) -> bool:
    with path.open("rb") as file:
        return MARK.encode() in file.read(512)


def install(bin_dir: Path, environ: Mapping[str, str]) -> int:
    """Write `conda` and the hook of `activate` into `bin_dir`, or take them away where there is a real conda."""
    conda, activate = bin_dir / "conda", bin_dir / "activate"
    script = HOOK.sub("", activate.read_text(encoding="utf-8"))
    if real := real_conda(environ):
        activate.write_text(script, encoding="utf-8")
        if conda.is_file() and _is_standin(conda):
            conda.unlink()
        say(f"not needed, `mlflow run` will use {real}")
        return 0
    this = shlex.quote(str(Path(__file__).resolve()))
    python = shlex.quote(str(bin_dir.absolute() / "python"))
    conda.write_text(f'#!/bin/sh\n# {MARK}\nexec {python} {this} "$@"\n', encoding="utf-8")
    conda.chmod(0o755)
    # `python` is looked up on PATH: the interpreter that is checked is the one that will run the command.
    hook = f"""\
# >>> {MARK}: `mlflow run` sources this file with its environment's name >>>
case "${{1:-}}" in mlflow-*)
    _moola_activate="$(python {this} activate "$1")" || return 1
    [ -z "$_moola_activate" ] || . "$_moola_activate" "$1"
    return
esac
# <<< {MARK} <<<
"""
    activate.write_text(hook + script, encoding="utf-8")
    say(f"no conda on this machine: `mlflow run` will use {bin_dir.parent} as it is")
    return 0


def activate(env_name: str) -> int:
    """Check the environment for the project in the current folder; print a real conda's activate script, if any."""
    if real := real_conda(os.environ):
        print(real.parent / "activate")
        return 0
    path = conda_yaml_of(env_name, Path.cwd())
    if path is None:
        say(f"no YAML file in {Path.cwd()} is the one that {env_name} was named after; nothing was started.")
        return 1
    try:
        lines = differences(path.read_text(encoding="utf-8"))
    except ValueError as error:
        lines = [str(error)]
    if not lines:
        return 0
    listing = "".join(f"  {line}\n" for line in lines)
    say(
        f"the environment at {sys.prefix} is not what {path} asks for; nothing was started.\n{listing}"
        "Run `make setup` in the project and try again, or let MLflow build an environment: "
        "`mlflow run ... --env-manager uv`."
    )
    return 1


def main(argv: list[str]) -> int:
    match argv:
        case ["install"]:
            return install(Path(sys.prefix, "bin"), os.environ)
        case ["activate", env_name] if ENV_NAME.fullmatch(env_name):
            return activate(env_name)
    if real := real_conda(os.environ):
        os.execv(real, [str(real), *argv])
    match argv:
        case ["--help"]:
            print(HELP)
        case ["env", "list", "--json"]:
            print(json.dumps({"envs": []}))
        case ["env", "create", "-n", env_name, "--file", _] if ENV_NAME.fullmatch(env_name):
            say(f"there is no conda here; using the environment at {sys.prefix} as it is, if its versions fit.")
        case _:
            say(f"`conda {' '.join(argv)}` is not supported: this is no conda, see `conda --help`. Nothing was done.")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
