"""One-minute bars: read any vendor's file, check it, choose an instrument, store it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.bars.cadence import LENGTHS, length_text
    from moola_mlflow.bars.checks import price_fault
    from moola_mlflow.bars.clocks import clock_hint, market_zone
    from moola_mlflow.bars.column_names import PRICES
    from moola_mlflow.bars.columns import take_rows, take_runs
    from moola_mlflow.bars.from_pandas import bars_from_table
    from moola_mlflow.bars.growing import GrowingFile, LineStream
    from moola_mlflow.bars.ingest import ingest_bars
    from moola_mlflow.bars.live_lines import BadLine, LineReader, LiveBar
    from moola_mlflow.bars.paths import find_files
    from moola_mlflow.bars.reader import Bars, read_bars, segments, write_parquet, write_store
    from moola_mlflow.bars.sample import generate_bars
    from moola_mlflow.bars.seen import SeenBars
    from moola_mlflow.bars.size_limits import check_dictionaries, check_parquet
    from moola_mlflow.bars.stamps import stamp_warning
    from moola_mlflow.bars.store import CARD, is_store, names_store
    from moola_mlflow.bars.summary import bars_per_day, rolls, summarise_bars
    from moola_mlflow.bars.times import MINUTE_NS, localise, parse_times, trade_date, utc

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "checks": ("price_fault",),
        "clocks": ("clock_hint", "market_zone"),
        "column_names": ("PRICES",),
        "columns": ("take_rows", "take_runs"),
        "from_pandas": ("bars_from_table",),
        "growing": ("GrowingFile", "LineStream"),
        "ingest": ("ingest_bars",),
        "live_lines": ("BadLine", "LineReader", "LiveBar"),
        "paths": ("find_files",),
        "reader": ("Bars", "read_bars", "segments", "write_parquet", "write_store"),
        "sample": ("generate_bars",),
        "seen": ("SeenBars",),
        "size_limits": ("check_dictionaries", "check_parquet"),
        "stamps": ("stamp_warning",),
        "store": ("CARD", "is_store", "names_store"),
        "summary": ("bars_per_day", "rolls", "summarise_bars"),
        "cadence": ("LENGTHS", "length_text"),
        "times": ("MINUTE_NS", "localise", "parse_times", "trade_date", "utc"),
    },
)
