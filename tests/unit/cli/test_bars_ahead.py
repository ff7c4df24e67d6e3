"""The bars and pictures that a worker makes ahead of `data` are those that the command would make itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from harness import SMOKE, Store

from moola_mlflow.bars import read_bars
from moola_mlflow.bars.reader import write_store
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.cli import bars_ahead
from moola_mlflow.cli.bars_ahead import begin_bars, count_of, finish_bars, read_few_bars
from moola_mlflow.core import BarsConfig, DataKeys, UserError, early_workers, make_config, read_preset
from moola_mlflow.reports import BarsReport, draw_png


def config_of(path: str, **keys: object) -> DataKeys:
    return make_config(DataKeys, read_preset(Path(SMOKE)), {"bars.path": path, **keys})


def test_bars_and_pictures_are_those_that_the_command_would_make() -> None:
    config = config_of("sample", **{"bars.sample_bars": 3000})
    read = read_few_bars(config, "2000")
    assert read is not None
    assert len(read.bars) == 3000
    here = BarsReport.of(read_bars(config.bars).head(2000), config.bars.max_gap_minutes).pictures()
    assert read.pictures == {name: draw_png(picture) for name, picture in here.items()}


@pytest.mark.parametrize("num", [0, 1])
def test_a_command_has_the_same_bars_with_a_worker_and_without(num: int) -> None:
    config = config_of("sample", **{"bars.sample_bars": 3000})
    with early_workers(num, ()):
        if num:
            begin_bars(config, {"head": "2000"})
        read = finish_bars(config)
    np.testing.assert_array_equal(read.bars.ohlc, read_bars(config.bars).ohlc)
    assert bool(read.pictures) == bool(num)


def test_large_bars_bars_elsewhere_and_stores_are_left_to_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_bars(500, 1).to_csv(tmp_path / "bars.csv")
    assert read_few_bars(config_of(str(tmp_path / "bars.csv")), "") is not None
    monkeypatch.setattr(bars_ahead, "MOST_BYTES", 1000)
    assert read_few_bars(config_of(str(tmp_path / "bars.csv")), "") is None
    assert read_few_bars(config_of("s3://nowhere/bars.csv"), "") is None
    assert read_few_bars(config_of("sample", **{"bars.sample_bars": 2_000_000}), "") is None
    write_store(read_bars(BarsConfig(sample_bars=500)), tmp_path / "bars.moolabars", 5)
    assert read_few_bars(config_of(str(tmp_path / "bars.moolabars")), "") is None


def test_a_bar_store_is_built_by_the_command_alone() -> None:
    with early_workers(1, ()) as workers:
        begin_bars(config_of("sample"), {"out": "bars.moolabars"})
        assert workers.begun is None


@pytest.mark.parametrize("head", ["0", "-1", "ten", "1e3", "٣", "1" * 16])
def test_a_head_that_is_no_number_above_zero_is_refused(head: str) -> None:
    with pytest.raises(UserError, match=r"head='.+'; allowed: a whole number of bars above 0"):
        count_of(head)


def test_bars_that_a_worker_refuses_end_as_those_that_the_command_refuses(tmp_path: Path) -> None:
    store = Store(tmp_path)
    rows = generate_bars(500, 1).reset_index()
    rows.loc[2, "high"] = rows.loc[2, "low"] - 1
    rows.to_csv(tmp_path / "bad.csv", index=False)
    with_worker = subprocess.run(  # a fresh process: a worker starts only before MLflow is imported
        [sys.executable, "-m", "moola_mlflow", "data", "--bars", "bad.csv"],
        cwd=tmp_path, env={**store.environment, "OMP_NUM_THREADS": "2"}, capture_output=True, text=True,
    )  # fmt: skip
    alone = store.run("data", {"bars": "bad.csv"})
    said = [[line for line in done.stderr.splitlines() if line.startswith("moola:")] for done in (with_worker, alone)]
    assert [with_worker.returncode, alone.returncode] == [2, 2]
    assert said[0] == said[1]
    assert said[0][0].startswith("moola: bad.csv: row 3")
    assert len(store.refused()) == 2
    assert not store.runs()
