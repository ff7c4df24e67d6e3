"""Every form of bars that users have, from the file to a registered encoder; and every bad file to its message."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from harness import QUICK, SMOKE, Store, note_of

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.core import BarsConfig

PRICES = ["open", "high", "low", "close"]
TRAIN = {"config": SMOKE, "encoder.hidden": "4"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def assert_trained(store: Store) -> None:
    run = store.runs()[0]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["leak/masked_sensitivity"] == 0
    assert store.client.get_model_version_by_alias("moola-encoder", "candidate").run_id == run.info.run_id


def test_the_published_local_validation_passes(store: Store) -> None:
    """Cut 10,000 bars, then train on them for 5 epochs in batches of 32."""
    assert store.run("data", {"head": "10000", "out": "out/local.parquet"}).returncode == 0
    done = store.run("pretrain", {"bars": "out/local.parquet", "epochs": "5", "batch_size": "32", "config": SMOKE})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "10,000 bars" in done.stdout
    assert_trained(store)
    run = store.runs()[0]
    assert run.data.metrics["test/mae"] > 0
    assert len(store.client.get_metric_history(run.info.run_id, "val/loss")) == 5
    counts = [int(word.split()[0]) for word in done.stdout.split("windows: ")[1].split(";")[0].split(", ")]
    assert len(counts) == 3
    assert min(counts) > 0


def test_minutes_are_put_together_and_an_encoder_of_them_says_so(store: Store) -> None:
    frame = generate_bars(40_000, 2)
    frame.to_csv(store.folder / "bars.csv")
    made = store.run("data", {"bars": "bars.csv", "bars.resample": "5min", "out": "five.parquet"})
    assert made.returncode == 0, made.stderr[-2000:]
    assert "40,000 rows were combined into 8,000 bars of 5 minutes" in made.stdout
    assert "Next: moola pretrain --bars five.parquet --bars.minutes 5" in made.stdout
    refused = store.run("pretrain", {**TRAIN, "bars": "five.parquet"})
    assert refused.returncode == 2
    assert "--bars.minutes 5" in refused.stderr
    done = store.run("pretrain", {**TRAIN, "bars": "five.parquet", "bars.minutes": "5"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert_trained(store)
    run = store.runs()[0]
    card = json.loads(store.artifact(run, "encoder/encoder.json").read_text())
    assert card["data"]["bar_minutes"] == 5
    assert store.config(run)["bars"]["max_gap_minutes"] == 25


@pytest.mark.slow
def test_a_headerless_semicolon_csv_of_end_stamped_bars_trains(store: Store, real_data: Path) -> None:
    bars = {"bars": str(real_data / "spy_ninjatrader_1min.csv"), "bars.stamp": "end", "bars.max_gap_minutes": "30"}
    assert store.run("pretrain", {**TRAIN, **bars}).returncode == 0
    assert_trained(store)


@pytest.mark.slow
def test_a_csv_in_eastern_time_over_a_clock_change_trains_as_its_utc_original(store: Store) -> None:
    frame = generate_bars(75_000, 3)[PRICES]
    frame = frame[(frame.index >= "2023-03-08") & (frame.index < "2023-03-17")]
    local = frame.copy()
    local.index = local.index.tz_convert("America/New_York").tz_localize(None)
    local.to_csv(store.folder / "eastern.csv", index_label="datetime")
    frame.to_csv(store.folder / "utc.csv", index_label="datetime")
    hashes = [
        read_bars(BarsConfig(path=str(store.folder / name), timezone=zone)).sha256
        for name, zone in (("eastern.csv", "America/New_York"), ("utc.csv", "UTC"))
    ]
    assert hashes[0] == hashes[1]
    bars = {"bars": "eastern.csv", "bars.timezone": "America/New_York"}
    assert store.run("pretrain", {**TRAIN, **bars}).returncode == 0
    assert_trained(store)
    assert store.runs()[0].data.tags["moola.data_sha256"] == hashes[0]


@pytest.mark.slow
def test_the_features_command_reports_real_bars_and_warns_of_the_published_zigzag(
    store: Store, real_data: Path
) -> None:
    bars = {"bars": str(real_data / "es_front_1min.parquet"), "bars.instrument": "front"}
    published = {"features.hybrid_lookback": "5", "features.hybrid_same_bar": "true"}
    plain = store.run("features", bars)
    noisy = store.run("features", {**bars, **published})
    assert plain.returncode == noisy.returncode == 0
    newest, oldest = store.runs()
    assert oldest.data.metrics["feature/swing_flip_rate"] < 0.34 < newest.data.metrics["feature/swing_flip_rate"]
    assert "Warning" in noisy.stdout
    assert "Warning" not in plain.stdout
    assert "swing features" in newest.data.tags["mlflow.note.content"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"bars": "in.parquet", "out": "in.parquet"}, "is the input itself"),
        ({"bars": "in.parquet", "out": "out.csv"}, "ends in .parquet"),
        ({"bars": "in.parquet", "out": "in.parquet/x.parquet"}, "cannot be written"),
        ({"bars": "in.parquet", "out": "in.parquet/"}, "is the input itself"),
        ({"bars": ".", "out": "in.parquet"}, "is the input itself"),
        ({"bars": "in.parquet", "out": "./"}, "is there and is no bar store"),
        ({"bars": "in.parquet", "head": "-5"}, "head='-5'"),
    ],
)
def test_data_never_overwrites_its_input_or_promises_a_file_it_cannot_write(
    store: Store, parameters: dict[str, str], message: str
) -> None:
    generate_bars(400, 5).to_parquet(store.folder / "in.parquet")
    before = (store.folder / "in.parquet").read_bytes()
    done = store.run("data", parameters)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert message in done.stderr
    assert (store.folder / "in.parquet").read_bytes() == before
    assert (store.runs(), len(store.refused())) == ([], 1)


@pytest.mark.slow
def test_a_folder_goes_once_into_a_store_and_trains_from_it_as_from_its_files(store: Store) -> None:
    """Two instruments, two files each; with weights on one of them the training is another one."""
    frame = generate_bars(16_000, 5).reset_index()
    for k, symbol in enumerate(("NQ", "ES")):
        whole = frame.assign(symbol=symbol, instrument_id=k)
        for part in (0, 1):
            path = store.folder / "months" / symbol / f"{part}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            whole[part * 8000 : (part + 1) * 8000].set_index("ts_event").to_parquet(path)
    done = store.run("data", {"bars": "months", "bars.instrument": "all", "out": "out/bars.moolabars"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "instruments: 2" in done.stdout
    for bars in ({"bars": "out/bars.moolabars"}, {"bars": "months", "bars.instrument": "all"}):
        done = store.run("pretrain", {**TRAIN, **bars, "register": "none"})
        assert done.returncode == 0, done.stderr[-2000:]
    assert store.run("pretrain", {**TRAIN, **bars, "register": "none", "windows.weights": "{ES: 3}"}).returncode == 0
    weighted, files, stored, data = store.runs()
    assert len({run.data.tags["moola.data_sha256"] for run in (weighted, files, stored, data)}) == 1
    assert stored.data.metrics["best_val_loss"] == files.data.metrics["best_val_loss"]
    assert stored.data.metrics["best_val_loss"] != weighted.data.metrics["best_val_loss"]


def test_data_shows_what_the_bars_hold_and_warns_of_stamps(store: Store) -> None:
    late = generate_bars(12_000, 5)
    late.index = late.index + pd.Timedelta(minutes=1)
    late.assign(symbol="<script>|[red]").to_parquet(store.folder / "in.parquet")
    done = store.run("data", {"bars": "in.parquet", "bars.instrument": "front"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "set --bars.stamp end" in done.stdout
    assert "<script>|[red]" in done.stdout
    (run,) = store.runs()
    assert "stamped with their end" in run.data.tags["moola.bars_warning"]
    assert "<script>" not in run.data.tags["mlflow.note.content"]
    summary = json.loads(store.artifact(run, "bars/summary.json").read_text())
    assert [row["instrument"] for row in summary["instruments"]] == ["<script>|[red]"]
    assert summary["bars"] == sum(row["bars"] for row in summary["instruments"]) == 12_000
    assert summary["segments"] == run.data.metrics["bars/segments"] > 1
    assert summary["longest_gaps"][0]["minutes"] > 60
    for name in ("bars_coverage", "bars_price"):
        assert store.artifact(run, f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_data_prints_how_it_read_a_file_and_what_is_odd_about_it(store: Store) -> None:
    frame = generate_bars(2_000, 5)[PRICES]
    frame.index = frame.index.strftime("%m/%d/%Y %H%M")
    frame.to_csv(store.folder / "in.csv", index_label="when")
    done = store.run("data", {"bars": "in.csv", "bars.columns": "{time: when}", "bars.dates": "month_first"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Note: in.csv: times name no zone and were read as UTC" in done.stdout
    assert "Note: in.csv: no column of volumes; volumes are 0" in done.stdout
    assert "Read in.csv: open = 'open', " in done.stdout
    assert (
        "time = 'when'; text such as '01/02/2023 2300', clock UTC, dates month first; first row 2023-01-02T23:00Z o "
        in (done.stdout)
    )


def bars_frame(num: int = 400) -> pd.DataFrame:
    return generate_bars(num, 5).reset_index()


def with_cell(column: str, value: float) -> pd.DataFrame:
    frame = bars_frame()
    frame.loc[200, column] = value
    return frame


def with_repeated_time() -> pd.DataFrame:
    frame = bars_frame()
    frame.loc[201, "ts_event"] = frame.loc[200, "ts_event"]
    return frame


def with_two_instruments() -> pd.DataFrame:
    other = bars_frame()
    other["instrument_id"], other["symbol"] = 77, "OTHER"
    return pd.concat([bars_frame(), other])


def flat() -> pd.DataFrame:
    frame = bars_frame(6000)
    frame[PRICES] = 100.0
    return frame


BAD_BARS = {
    "a missing column": (lambda: bars_frame().drop(columns="close"), "close"),
    "a NaN price": (lambda: with_cell("close", np.nan), "row 201"),
    "a repeated time": (with_repeated_time, "row 202"),
    "high below low": (lambda: with_cell("high", 1.0), "row 201"),
    "several instruments": (with_two_instruments, "bars.instrument"),
    "50 bars": (lambda: bars_frame(50), "50 bars"),
    "bars that never move": (flat, "non-zero in 0.00%"),
}


@pytest.mark.parametrize("kind", BAD_BARS)
def test_bad_bars_end_with_one_message_exit_2_and_no_run(store: Store, kind: str) -> None:
    make, message = BAD_BARS[kind]
    make().set_index("ts_event").to_parquet(store.folder / "bad.parquet")
    assert_refused(store, "bad.parquet", message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("empty.csv", b"", "empty.csv"), ("text.parquet", b"date,open\n", "parquet"), ("bars.xlsx", b"PK", ".xlsx")],
)
def test_a_file_that_is_not_what_it_says_is_refused(store: Store, name: str, content: bytes, message: str) -> None:
    (store.folder / name).write_bytes(content)
    assert_refused(store, name, message)


def assert_refused(store: Store, path: str, message: str) -> None:
    done = store.run("pretrain", {**QUICK, "config": SMOKE, "bars": path})
    assert done.returncode == 2, done.stderr[-2000:]
    said = done.stderr.split("moola: ")[-1]
    assert message in said
    assert "Traceback" not in done.stderr
    kept, removed = store.runs(), store.refused()
    # Only the run that had its features reported stays: the report is what the user needs.
    assert [len(kept), len(removed)] == ([1, 0] if "non-zero" in message else [0, 1])
    (run,) = kept + removed
    assert said.strip()[:60] in note_of(run)
