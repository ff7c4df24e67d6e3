"""What `moola data` says of bars: figures, a note and pictures, however many instruments they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from small_bars import bars_at

from moola_mlflow.reports.bars_report import SHOWN, BarsReport
from moola_mlflow.tracking import Artifacts, Metrics

DAY = 24 * 60


def report_of(minutes: np.ndarray, instrument: np.ndarray, path: str = "out/bars.parquet") -> BarsReport:
    return BarsReport.of(bars_at(minutes, instrument), 5, Path(path))


def behind(num: int, bars: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Instruments that lie one behind another, the later ones with more bars."""
    sizes = bars + np.arange(num)
    return np.concatenate([np.arange(size) for size in sizes]), np.repeat(np.arange(num), sizes)


def shown(report: BarsReport) -> str:
    console = Console(width=130)
    with console.capture() as capture:
        console.print(report.console_table())
    return "\n".join([capture.get(), *report.console_lines()])


def test_the_figures_count_bars_segments_days_and_rolls() -> None:
    minutes = np.concatenate([np.arange(40), DAY + np.arange(50)])
    report = report_of(minutes, np.repeat([1, 2], [40, 50]))
    metrics = report.metrics()
    assert (metrics[Metrics.BARS], metrics[Metrics.BARS_SEGMENTS], metrics[Metrics.BARS_INSTRUMENTS]) == (90, 2, 2)
    assert (metrics[Metrics.BARS_LONGEST_SEGMENT], metrics[Metrics.BARS_DAYS], metrics[Metrics.BARS_ROLLS]) == (
        50,
        2,
        1,
    )
    assert report.headline() == "90 bars, instruments: 2, segments: 2, 2024-01-01T00:00Z to 2024-01-02T00:49Z"


def test_the_note_and_the_console_list_twenty_instruments_and_count_the_others() -> None:
    report = report_of(*behind(SHOWN + 3))
    assert "and 3 more instruments: bars/instruments.json" in report.note()
    assert "and 3 more instruments: bars/instruments.json" in shown(report)
    assert report.note().count("\n|") == 2 + SHOWN  # the heads and the line below them
    assert len(report.rows) == SHOWN + 3
    few = report_of(*behind(SHOWN))
    assert "more instruments" not in few.note()
    assert "more instruments" not in shown(few)


def test_the_next_command_reads_the_file_whatever_its_name() -> None:
    report = report_of(*behind(1), path="my bars/`now`.parquet")
    assert report.console_lines()[-1] == "Next: moola pretrain --bars 'my bars/`now`.parquet'"
    assert "`moola pretrain --bars 'my bars/`now`" not in report.note()
    assert "Next: `moola pretrain --bars out/bars.parquet`" in report_of(*behind(1)).note()


def test_instruments_without_a_common_price_axis_show_the_one_with_most_bars() -> None:
    pictures = dict(report_of(*behind(3)).pictures())
    assert list(pictures) == [Artifacts.BARS_COVERAGE_FIGURE, Artifacts.BARS_PRICE_FIGURE]
    assert pictures[Artifacts.BARS_PRICE_FIGURE].draw().get_suptitle() == "2: 32 bars in 1 segments"


def test_contracts_that_follow_each_other_share_one_picture() -> None:
    pictures = dict(report_of(np.arange(80), np.repeat([1, 2], 40)).pictures())
    assert pictures[Artifacts.BARS_PRICE_FIGURE].draw().get_suptitle() == "1 2: 80 bars in 2 segments"
