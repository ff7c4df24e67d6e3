"""The image copies what an installation needs, uses the locked versions, and starts programs that exist."""

from __future__ import annotations

import json
import re

from packaging.requirements import Requirement
from paths import ROOT

LINES = re.sub(r"\\\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8")).splitlines()


def words(instruction: str) -> list[list[str]]:
    return [line.split()[1:] for line in LINES if line.startswith(f"{instruction} ")]


def test_every_file_that_the_image_copies_is_there_and_none_is_missing_for_the_build() -> None:
    copied = {name.removeprefix("./") for line in words("COPY") for name in line[:-1]}
    assert [name for name in sorted(copied) if not (ROOT / name).exists()] == []
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE", "configs", "moola_mlflow"} <= copied


def test_the_image_has_the_python_and_the_versions_of_the_lock_and_extras_that_exist() -> None:
    assert words("FROM")[0][0].startswith("python:3.11-")
    (install,) = [" ".join(line) for line in words("RUN") if line[0] == "pip"]
    assert "-c requirements.lock" in install
    extras = re.findall(r'"\.\[([\w,]+)\]"', install)[0]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name} = \[", project, re.M) for name in Requirement(f"x[{extras}]").extras)


def test_the_image_runs_as_a_user_without_rights_and_serves_mlflow() -> None:
    assert words("USER") == [["10001"]]
    command = json.loads(next(line for line in LINES if line.startswith("CMD ")).removeprefix("CMD "))
    assert command[:2] == ["mlflow", "server"]
    options = {word for word in command if word.startswith("--")}
    from mlflow.cli import server

    assert options <= {name for parameter in server.params for name in parameter.opts}
