"""The stand-in for conda, as functions; tests/e2e/test_environment.py runs it under bash and MLflow's launcher."""

import sys
from importlib import metadata
from pathlib import Path

import conda_standin
import pytest
from mlflow.utils.conda import _get_conda_env_name

MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


def conda_yaml(*pins: str, python: str = MINOR) -> str:
    listing = "".join(f"      - {pin}\n" for pin in pins)
    return f"channels:\n  - conda-forge\ndependencies:\n  - python={python}\n  - pip\n  - pip:\n{listing}"


def test_an_environment_that_has_every_pin_shows_no_difference() -> None:
    installed = f"numpy=={metadata.version('numpy')}"
    assert conda_standin.differences(conda_yaml(installed)) == []


def test_a_difference_says_what_was_found_and_what_is_wanted() -> None:
    found = metadata.version("numpy")
    lines = conda_standin.differences(conda_yaml("numpy==0.1", "no-such-package-here==1.0", python="2.7"))
    assert lines[0].startswith("python: found 3.")
    assert lines[0].endswith("wanted 2.7")
    assert lines[1:] == [f"numpy: found {found}, wanted 0.1", "no-such-package-here: not installed, wanted 1.0"]


def test_another_patch_release_of_python_is_no_difference() -> None:
    assert conda_standin.differences(conda_yaml(python=f"{MINOR}.99")) == []


def test_a_local_build_label_satisfies_a_pin_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conda_standin.metadata, "version", lambda name: "2.13.0+cpu")
    assert conda_standin.differences(conda_yaml("torch==2.13.0", "torch==2.13.0+cpu")) == []
    assert conda_standin.differences(conda_yaml("torch==2.13.0+cu130")) != []


@pytest.mark.parametrize("dependency", ["numpy>=2", "numpy", "-r requirements.txt", "git+https://example.org/x.git"])
def test_a_dependency_that_is_no_exact_pin_cannot_be_vouched_for(dependency: str) -> None:
    with pytest.raises(ValueError, match="not an exact pin"):
        conda_standin.wanted_versions(conda_yaml(dependency))


def test_a_file_whose_python_cannot_be_read_is_not_taken_for_one_without_wishes() -> None:
    with pytest.raises(ValueError, match="no python=VERSION"):
        conda_standin.wanted_versions("dependencies: [python=3.11, pip]\n")


def test_the_project_s_file_is_found_by_the_name_that_mlflow_gives_its_environment(tmp_path: Path) -> None:
    (tmp_path / "another.yaml").write_text("name: another\n")
    (tmp_path / "conda.yaml").write_text("name: größe\n", encoding="utf-8")
    name = _get_conda_env_name(str(tmp_path / "conda.yaml"))
    assert conda_standin.ENV_NAME.fullmatch(name)
    assert conda_standin.conda_yaml_of(name, tmp_path) == tmp_path / "conda.yaml"
    assert conda_standin.conda_yaml_of("mlflow-" + "0" * 40, tmp_path) is None


@pytest.mark.parametrize(
    "argv", [[], ["install", "numpy"], ["env", "create", "-f", "conda.yaml"], ["activate", "base"]]
)
def test_every_other_conda_command_is_refused(
    argv: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conda_standin, "real_conda", lambda environ: None)
    assert conda_standin.main(argv) == 2
    assert "this is no conda" in capsys.readouterr().err


def test_setting_up_twice_leaves_one_hook_and_a_real_conda_takes_it_away(tmp_path: Path) -> None:
    bin_dir, elsewhere = tmp_path / "venv" / "bin", tmp_path / "miniconda" / "bin"
    bin_dir.mkdir(parents=True)
    elsewhere.mkdir(parents=True)
    (bin_dir / "activate").write_text("VIRTUAL_ENV=here\n")
    for _ in range(2):
        conda_standin.install(bin_dir, {"PATH": f"{bin_dir}:{elsewhere}"})
        script = (bin_dir / "activate").read_text()
        assert script.count(f">>> {conda_standin.MARK}") == 1
        assert script.endswith("VIRTUAL_ENV=here\n")
        assert (bin_dir / "conda").is_file()
    real = elsewhere / "conda"
    real.write_text("#!/bin/sh\n")
    real.chmod(0o755)
    conda_standin.install(bin_dir, {"PATH": f"{bin_dir}:{elsewhere}"})
    assert (bin_dir / "activate").read_text() == "VIRTUAL_ENV=here\n"
    assert not (bin_dir / "conda").exists()
