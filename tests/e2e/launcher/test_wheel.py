"""The built wheel, installed outside any checkout: presets, a training, and nothing left after it is uninstalled."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from paths import ROOT

pytestmark = pytest.mark.slow
SOURCES = ("moola_mlflow", "configs", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


def run(*words: str | Path, cwd: Path, fails: bool = False) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; other packages come from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():  # other processes write compiled files meanwhile
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source, cwd=folder)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run(*pip, "--python", folder / "venv" / "bin" / "python", "install", "-q", "--no-deps", wheel, cwd=folder)
    # A path in a .pth file: the packages there are found, but their own .pth files, an editable checkout, are not read.
    (site_packages(folder / "venv") / "rest.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "venv"


def site_packages(environment: Path) -> Path:
    (found,) = environment.glob("lib/python3*/site-packages")
    return found


def test_the_installed_wheel_trains_on_a_preset_by_name_and_its_removal_leaves_nothing(
    environment: Path, tmp_path: Path
) -> None:
    python, moola = environment / "bin" / "python", environment / "bin" / "moola"
    heavy = "{'torch', 'mlflow', 'pandas', 'numpy'} & set(sys.modules)"
    shown = run(python, "-c", f"import sys, moola_mlflow as m; print(m.__file__, *{heavy})", cwd=tmp_path).stdout
    assert shown.split() == [str(site_packages(environment) / "moola_mlflow" / "__init__.py")]
    listed = [line.split()[0] for line in run(moola, "presets", cwd=tmp_path).stdout.splitlines()]
    assert listed == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    assert "pretrain" in run(moola, cwd=tmp_path).stdout
    assert "did you mean 'smoke'" in run(moola, "pretrain", "--config", "smok", cwd=tmp_path, fails=True).stderr
    trained = run(moola, "pretrain", "--config", "smoke", "--epochs", "1", cwd=tmp_path)
    assert "Created version '1' of model 'moola-encoder'" in trained.stderr
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "uninstall", "-q", "-y", "moola-mlflow", cwd=tmp_path)
    assert [path.name for path in site_packages(environment).iterdir() if "moola" in path.name] == []
    assert not moola.exists()
