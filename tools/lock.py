"""Write requirements.lock and the pins of conda.yaml from the packages of this environment.

pip install -e '.[dev]' --upgrade   # in an environment that may change
python tools/lock.py                # then run all tests, and commit both files with pyproject.toml
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
HEADER = """\
# The exact version of every package that the project is developed and tested with: Python 3.11, Linux.
# `make setup` installs these; conda.yaml repeats those that the package itself needs. pyproject.toml has the ranges.
# tools/lock.py writes this file.
"""
OWN = "moola-mlflow"
TOOLS = ("pip", "setuptools", "wheel")
"""What an environment brings along."""


def installed() -> dict[str, str]:
    """Return the version of every installed package, without the build that torch appends to its own."""
    found = {canonicalize_name(one.name): one.version.split("+")[0] for one in importlib.metadata.distributions()}
    return {name: found[name] for name in sorted(found) if name not in (OWN, *TOOLS)}


def locked() -> dict[str, str]:
    """Return the versions of requirements.lock by package."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def needed() -> list[Requirement]:
    """Return what pyproject.toml says that the package needs, in its order."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in project["dependencies"]]


def main() -> None:
    versions = installed()
    lines = [f"{name}=={version}\n" for name, version in versions.items()]
    (ROOT / "requirements.lock").write_text(HEADER + "".join(lines), encoding="utf-8")
    pins = "".join(f"      - {one.name}=={versions[canonicalize_name(one.name)]}\n" for one in needed())
    conda = ROOT / "conda.yaml"
    text = conda.read_text(encoding="utf-8")
    conda.write_text(re.sub(r"(?<=  - pip:\n)(      - .*\n)+", pins, text), encoding="utf-8")


if __name__ == "__main__":
    main()
