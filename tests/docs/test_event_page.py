"""The Python of docs/explanation/events.md, run with small labels, a random encoder and sample bars."""

from documented import blocks
from small_events import encoder_of_rules, looked_at, sample

from moola_mlflow.models import EVENT_COLUMNS


def test_the_example_of_the_page_fits_a_detector_and_scans_bars() -> None:
    (code,) = blocks("docs/explanation/events.md", "python")
    names = {
        "labels": looked_at(60),
        "encoder": encoder_of_rules(),
        "bars": sample(),
        "time_ns": 0,
        "ohlc": sample().ohlc[0],
    }
    exec(compile(code, "events.md", "exec"), names)
    table = names["scan"].table()
    assert list(table.columns) == list(EVENT_COLUMNS)
    listed = code.partition("scan.table()  # ")[2].partition("\n")[0]
    assert listed == ", ".join(EVENT_COLUMNS)
    assert names["events"] == []  # one bar decides nothing
