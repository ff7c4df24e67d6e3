"""Tables in memory become files that a command reads, with the same content."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import moola_mlflow as moola
from moola_mlflow.api.inputs import bars_path, detector_name, encoder_name, labels_path
from moola_mlflow.core import UserError


@pytest.fixture(scope="module")
def bars() -> moola.Bars:
    return moola.read_bars(moola.BarsConfig(sample_bars=2000))


def test_bars_in_memory_are_written_once_and_read_back_with_their_hash(bars: moola.Bars, tmp_path: Path) -> None:
    path = bars_path(bars, tmp_path)
    assert moola.read_bars(moola.BarsConfig(path=path, instrument="all")).sha256 == bars.sha256
    before = Path(path).stat().st_mtime_ns
    assert bars_path(bars, tmp_path) == path
    assert Path(path).stat().st_mtime_ns == before


def test_a_pandas_table_of_bars_is_read_as_a_file_with_its_columns_is(bars: moola.Bars, tmp_path: Path) -> None:
    index = pd.DatetimeIndex(bars.time_ns.view("datetime64[ns]"), tz="UTC")
    frame = pd.DataFrame(bars.ohlc, columns=["open", "high", "low", "close"], index=index)
    read = moola.read_bars(moola.BarsConfig(path=bars_path(frame, tmp_path)))
    assert (read.ohlc == bars.ohlc).all()
    assert (read.time_ns == bars.time_ns).all()


def test_labels_in_memory_are_read_back_with_their_events(bars: moola.Bars, tmp_path: Path) -> None:
    spans = pd.DataFrame({"start": bars.time_ns[[300]], "end": bars.time_ns[[310]], "label": ["surge"]})
    labels = moola.labels_from_spans(bars, spans)
    path = labels_path(labels, tmp_path)
    assert moola.read_labels(path).counts() == {"surge": 1, "none": 0}
    frame = pd.read_parquet(path)
    assert moola.read_labels(labels_path(frame, tmp_path)).sha256 == moola.read_labels(path).sha256


def test_paths_and_names_are_passed_on_as_they_are(tmp_path: Path) -> None:
    assert bars_path(Path("bars.csv"), tmp_path) == "bars.csv"
    assert labels_path("runs:/0123", tmp_path) == "runs:/0123"
    assert encoder_name(None) == ""
    assert detector_name("models:/nq-detector@champion") == "models:/nq-detector@champion"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="encoder is a dict; allowed: models:/NAME@ALIAS"):
        encoder_name({})  # type: ignore[arg-type]
