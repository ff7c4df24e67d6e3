"""Files that are not there are refused before a run begins, in the words of their readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from moola_mlflow.bars import generate_bars
from moola_mlflow.cli import main
from moola_mlflow.cli.inputs import check_inputs
from moola_mlflow.cli.parser import settle
from moola_mlflow.core import UserError

CASES = {
    "no bars": ("pretrain", {"bars": "nowhere.csv"}, r"bars: no file 'nowhere.csv'"),
    "bars of a scan": ("detect", {"bars": "nowhere/*.csv"}, r"bars: no file matches"),
    "an empty folder of bars": ("data", {"bars": "empty"}, r"bars: folder 'empty' holds no bars file"),
    "no labels": ("finetune", {"labels": "nowhere.parquet"}, r"labels: no file 'nowhere.parquet'"),
    "labels that are no parquet": ("finetune", {"labels": "text.parquet"}, "cannot be read as parquet"),
    "no encoder": ("finetune", {"encoder": "nowhere"}, "encoder 'nowhere' does not exist; give models:/"),
    "one of two encoders": ("finetune", {"encoder": "empty, nowhere"}, "encoder 'nowhere' does not exist"),
    "no detector": ("detect", {"bars": "sample", "detector": "nowhere"}, "detector 'nowhere' does not exist"),
    "an unknown encoder": ("pretrain", {"encoder.name": "nothing"}, "encoder.name='nothing'"),
}


@pytest.fixture
def folder(workdir: Path) -> Path:
    (workdir / "empty").mkdir()
    (workdir / "text.parquet").write_text("no parquet")
    generate_bars(300, 1).to_parquet(workdir / "bars.parquet")
    return workdir


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_there_is_refused_and_leaves_neither_a_run_nor_a_folder(
    folder: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    name, values, message = CASES[case]
    if case != "an unknown encoder":  # that one is known when torch is there
        with pytest.raises(UserError, match=message):
            check_inputs(name, settle(name, values).config)
    words = [word for key, value in values.items() for word in (f"--{key}", value)]
    assert main.run_cli([name, *words]) == 2
    said = capsys.readouterr()
    assert message.replace("\\", "") in said.err or case.startswith(("bars of", "labels that"))
    assert "Run " not in said.out
    assert not (folder / ".moola").exists()
    assert [one for one in mlflow.MlflowClient().search_experiments() if one.name != "Default"] == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("pretrain", {"bars": "bars.parquet"}),
        ("pretrain", {"bars": "s3://bucket/bars.parquet"}),
        ("data", {"bars": "*.parquet"}),
        ("data", {}),
        ("detect", {"bars": "comes/later.csv", "detect.follow": "true"}),
        ("finetune", {"labels": "runs:/" + "0" * 32, "encoder": "models:/moola-encoder@champion"}),
        ("finetune", {}),
    ],
)
def test_what_is_there_or_elsewhere_passes(folder: Path, name: str, values: dict[str, str]) -> None:
    check_inputs(name, settle(name, values).config)
