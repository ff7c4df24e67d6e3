"""Labels by the run that logged them, beside files and the sample."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from small_labels import small_labels

from moola_mlflow.core import FinetuneKeys, UserError, make_config
from moola_mlflow.labels import write_labels
from moola_mlflow.tracking import read_input_events, read_input_labels


def config(path: str) -> FinetuneKeys:
    return make_config(FinetuneKeys, {}, {"labels.path": path, "bars.sample_bars": 12_000, "labels.n": 20})


@pytest.fixture
def run_id(workdir: Path) -> str:
    """A run that logged a labels file and a table."""
    client = mlflow.MlflowClient()
    run = client.create_run("0").info.run_id
    write_labels(small_labels(), workdir / "mine.parquet")
    client.log_artifact(run, str(workdir / "mine.parquet"))
    client.log_text(run, "{}", "labels_table.json")
    return str(run)


@pytest.mark.parametrize("within", ["", "/mine.parquet"])
def test_a_run_means_the_labels_file_that_it_logged(run_id: str, workdir: Path, within: str) -> None:
    labels = read_input_labels(config(f"runs:/{run_id}{within}"))
    assert labels.sha256 == read_input_labels(config(str(workdir / "mine.parquet"))).sha256
    assert labels.path == f"runs:/{run_id}{within}"
    assert read_input_events(config(f"runs:/{run_id}{within}")).sha256 == labels.sha256


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("runs:/{run}/other.parquet", "cannot be fetched from"),
        ("runs:/0123456789abcdef0123456789abcdef", "cannot be fetched from"),
    ],
)
def test_a_run_without_such_labels_is_refused(run_id: str, uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_input_labels(config(uri.format(run=run_id)))


def test_a_run_with_two_labels_files_is_asked_which(run_id: str, workdir: Path) -> None:
    write_labels(small_labels(seed=3), workdir / "yours.parquet")
    mlflow.MlflowClient().log_artifact(run_id, str(workdir / "yours.parquet"))
    with pytest.raises(UserError, match=r"the run holds mine.parquet, yours.parquet; name its labels file, runs:/"):
        read_input_labels(config(f"runs:/{run_id}"))


def test_the_sample_has_the_same_hash_as_spans_and_as_events(workdir: Path) -> None:
    assert read_input_events(config("sample")).sha256 == read_input_labels(config("sample")).sha256
