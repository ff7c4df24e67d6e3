"""Arrow files and workbooks are read; what only looks like one is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from bar_makers import NUM, bars

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import BarsConfig, UserError


def test_a_stream_and_a_file_of_arrow_hold_the_same_bars(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(bars())
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, 50)
    with pa.ipc.new_stream(str(tmp_path / "b.ipc"), table.schema) as writer:
        writer.write_table(table, 50)
    hashes = {read_bars(BarsConfig(path=str(path)), 1).sha256 for path in tmp_path.iterdir()}
    assert len(hashes) == 1


def test_a_table_of_lists_is_refused(tmp_path: Path) -> None:
    frame = bars()
    frame["open"] = [[1.0]] * NUM
    frame.to_feather(tmp_path / "a.feather")
    with pytest.raises(UserError, match="a bar has one number"):
        read_bars(BarsConfig(path=str(tmp_path / "a.feather")), 1)


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    bars().to_feather(tmp_path / "a.feather")
    whole = (tmp_path / "a.feather").read_bytes()
    for size in (6, 100, len(whole) // 2, len(whole) - 10):
        (tmp_path / "b.feather").write_bytes(whole[:size])
        with pytest.raises(UserError, match="cannot be read as Arrow"):
            read_bars(BarsConfig(path=str(tmp_path / "b.feather")), 1)


def test_a_workbook_is_read_as_its_first_sheet(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl", reason="the extra excel is not installed")
    bars().to_excel(tmp_path / "a.xlsx", index=False)
    found = read_bars(BarsConfig(path=str(tmp_path / "a.xlsx")), 1)
    assert np.array_equal(found.ohlc, bars()[["open", "high", "low", "close"]].to_numpy())
