"""The section on what follows events says what it is, and the tables hold the figures with their intervals."""

from __future__ import annotations

from small_events import random_event_detector, sample

from moola_mlflow.evaluation import follow_events
from moola_mlflow.models import scan_events
from moola_mlflow.reports.after_events import NO_BACKTEST, after_blocks
from moola_mlflow.reports.document import Document, Notice, Picture, Table

SCAN = scan_events(sample().rows(slice(0, 6000)), random_event_detector(), 0.0)


def test_it_says_that_it_is_no_backtest_and_counts_what_is_left_out() -> None:
    after = follow_events(SCAN)
    document = Document("page")
    document.add(*after_blocks(after, lambda: b"png"))
    text = document.markdown()
    assert NO_BACKTEST in [block.text for block in document.blocks if isinstance(block, Notice)]
    assert "It is not a backtest" in text
    assert "America/New" in text
    left = after.num_left_out()
    assert f"{left[60]:,} for 60 bars" in text
    assert 0 < after.num_days < 20
    assert f"There are only {after.num_days} trade dates" in text
    assert any(isinstance(block, Picture) for block in document.blocks)


def test_a_row_of_the_table_has_the_figures_of_events_and_of_random_moments() -> None:
    after = follow_events(SCAN)
    first, hours = [block for block in after_blocks(after, lambda: b"png") if isinstance(block, Table)]
    names = {row[0] for row in first.rows}
    assert names == {"all", "consolidation", "retracement", "reversal"}
    assert len(first.rows) == 16
    own = after.table[(after.table["label"] == "all") & (after.table["hour"] == "all") & (after.table["bars"] == 5)]
    move = own[own["measure"] == "move"].iloc[0]
    assert first.rows[0][3] == f"{move['value']:.2f} [{move['lo']:.2f}, {move['hi']:.2f}]"
    assert first.rows[0][4] == f"{move['random']:.2f} [{move['random_lo']:.2f}, {move['random_hi']:.2f}]"
    assert len(hours.rows) == 4 * after.table.loc[after.table["hour"] != "all", "hour"].nunique()


def test_without_an_event_there_is_no_section() -> None:
    assert after_blocks(follow_events(SCAN.at(1.1)), lambda: b"png") == []
