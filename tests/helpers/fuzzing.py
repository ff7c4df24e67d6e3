"""Hostile input for every reader: each either gives a value or a UserError, soon and in little memory.

    python tests/fuzzing.py csv 5000

Runs one target in a process of its own and prints how many inputs it saw and how many were accepted; ends with an error
at the first that gives anything else. The address space is bounded, and one input may take no longer than a minute.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import faulthandler
import io
import json
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.bars.size_limits import FREE_BYTES
from moola_mlflow.core import (
    COMMANDS,
    BarsConfig,
    CommandKeys,
    dotted_keys,
    every_key,
    make_config,
    read_preset,
)
from moola_mlflow.core.errors import UserError
from moola_mlflow.labels.label_files import read_span_labels

ADDRESS_SPACE = 6 * 2**30
MOST_MORE = 2 * FREE_BYTES
"""How far the peak of resident memory may rise, whatever comes."""
SECONDS = 60

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
counts = {"inputs": 0, "accepted": 0}


def attempt(read: Callable[[], object]) -> None:
    """Read one input; anything but a value or a UserError of a readable length is a find."""
    counts["inputs"] += 1
    try:
        read()
        counts["accepted"] += 1
    except UserError as e:
        if len(str(e)) > 20_000:
            raise RuntimeError(f"a message of {len(str(e)):,} characters") from None


def written(name: str, content: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(content)
    return path


# --- bytes that were valid once ---------------------------------------------------------------------------------------

TOKENS = st.sampled_from(
    [
        b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n", b'"', b'""', b",", b";", b"\t", b"\xe9", b"nan", b"inf",
        b"-inf", b"1e999",
        b"9" * 400, b"-0", b"0x10", b"1,5", b"1_000", b"9999-12-31 23:59", b"0000-00-00", b"2024-02-30 25:61",
        b"1677-01-01", b"-1",
        b"9223372036854775808", b"18446744073709551616", b"2024-03-10T02:30:00", b"+99:99", b"\xf0\x9f\x92\xa3",
        b"\xed\xa0\x80",
        b"time", b"open", b"ts_event", b"symbol", b"rtype", b"=cmd()", b"A" * 70_000, b"\x1a", b"None", b"true",
        b"1e-320",
    ]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """An original with some bytes replaced, inserted, removed, doubled or cut off."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.integers(0, 5))
        if kind == 0:
            content[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
        elif kind == 1:
            content[at:at] = draw(TOKENS)
        elif kind == 2:
            content[at : at + draw(st.integers(1, 40))] = b""
        elif kind == 3:
            content[at:at] = content[at : at + draw(st.integers(1, 60))]
        elif kind == 4:
            del content[at:]
        elif at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


def plain_frame(num: int = 12) -> pd.DataFrame:
    index = pd.date_range("2024-03-10 01:30", periods=num, freq="min", tz="UTC", name="ts_event")
    ohlc = {"open": 1.5, "high": 2.0, "low": 1.0, "close": 1.25}
    return pd.DataFrame({"rtype": 33, "instrument_id": 7, **ohlc, "volume": 3, "symbol": "ES"}, index=index)


def csv_originals() -> list[bytes]:
    frame = plain_frame()
    raw = frame.drop(columns="symbol")
    raw.index = pd.Index(raw.index.as_unit("ns").asi8, name="ts_event")
    raw[["open", "high", "low", "close"]] = (raw[["open", "high", "low", "close"]] * 1e9).astype("int64")
    ninja = "\n".join(f"20240310 0130{s:02};1;2;1;1;5" for s in range(12))
    local = frame[["open", "high", "low", "close"]].set_axis(frame.index.strftime("%m/%d/%Y %I:%M %p"), axis=0)
    split = "Date,Time,O,H,L,C,V\n" + "\n".join(f"2024-03-10,01:{m:02},1,2,1,1,5" for m in range(12))
    texts = [frame.to_csv(), raw.to_csv(), ninja, local.to_csv(index_label="time"), split]
    return [text.encode() for text in texts] + [frame.to_csv().encode("utf-16"), frame.to_csv().encode("utf-8-sig")]


ZONES = st.sampled_from(["UTC", "America/New_York"])


def bars(name: str, content: bytes, **keys: Any) -> None:
    attempt(lambda: read_bars(BarsConfig(path=str(written(name, content)), **keys), 1))


@given(
    mutated(csv_originals()),
    ZONES,
    st.sampled_from(["refuse", "drop"]),
    st.sampled_from([None, "all", "front", "ES", "7"]),
)
def csv(content: bytes, zone: str, repair: str, instrument: str | None) -> None:
    bars("a.csv", content, timezone=zone, repair=repair, instrument=instrument)


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


BASE = pa.Table.from_pandas(plain_frame())
PARQUETS = [parquet_bytes(BASE), parquet_bytes(BASE, compression="zstd"), parquet_bytes(BASE, use_dictionary=False)]
PARQUETS.append(parquet_bytes(BASE, data_page_version="2.0", compression="gzip"))


def odd_columns(num: int) -> st.SearchStrategy[pa.Array]:
    """Columns of any type and any value."""
    numbers = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))
    floats = st.one_of(st.none(), st.floats(), st.sampled_from([1.0, 2.0]))
    texts = st.one_of(
        st.none(), st.text(max_size=6), st.sampled_from(["2024-03-10 01:30", "ES", "1.5", "03/04/2024 10:00"])
    )
    times = st.one_of(st.none(), st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)))

    def of(values: st.SearchStrategy[Any], kind: pa.DataType) -> st.SearchStrategy[pa.Array]:
        return st.lists(values, min_size=num, max_size=num).map(lambda items: pa.array(items, kind))

    return st.one_of(
        of(numbers, pa.int64()),
        of(st.integers(0, 2**64 - 1), pa.uint64()),
        of(floats, pa.float64()),
        of(floats.map(lambda x: None if x is None or abs(x) > 6e4 else x), pa.float16()),
        of(texts, pa.string()),
        of(texts, pa.large_string()),
        of(texts, pa.string_view()),
        of(texts, pa.string()).map(lambda column: column.dictionary_encode()),
        of(st.one_of(st.none(), st.binary(max_size=5)), pa.binary()),
        of(times, pa.timestamp("us")),
        of(times, pa.timestamp("us", "America/New_York")),
        of(st.integers(-(2**52), 2**52), pa.int64()).map(lambda column: column.cast(pa.timestamp("s"))),
        of(numbers, pa.int64()).map(lambda column: column.cast(pa.timestamp("ms", "UTC"))),
        of(times.map(lambda t: t and t.date()), pa.date32()),
        of(times.map(lambda t: t and t.time()), pa.time64("us")),
        of(st.one_of(st.none(), st.booleans()), pa.bool_()),
        of(st.one_of(st.none(), st.decimals(-99, 99, places=2)), pa.decimal128(10, 2)),
        of(st.none(), pa.null()),
        of(st.one_of(st.none(), st.lists(floats, max_size=3)), pa.list_(pa.float64())),
        of(st.one_of(st.none(), st.fixed_dictionaries({"a": floats})), pa.struct([("a", pa.float64())])),
        of(st.one_of(st.none(), st.timedeltas(dt.timedelta(0), dt.timedelta(9))), pa.duration("us")),
    )


@st.composite
def odd_tables(draw: st.DrawFn, base: pa.Table) -> pa.Table:
    """A good table with some columns replaced, removed, renamed or doubled."""
    table = base
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, table.num_columns - 1))
        name, kind = table.column_names[at], draw(st.integers(0, 4))
        if kind == 0 and table.num_columns > 1:
            table = table.remove_column(at)
        elif kind == 1:
            table = table.rename_columns(
                [draw(st.text(max_size=5)) if i == at else n for i, n in enumerate(table.column_names)]
            )
        elif kind == 2:
            table = table.append_column(draw(st.sampled_from([name, name.upper(), "date", "time", "weak"])), table[at])
        else:
            table = table.set_column(at, name, draw(odd_columns(table.num_rows)))
    return table.slice(0, draw(st.integers(0, table.num_rows))) if draw(st.booleans()) else table


@given(st.one_of(mutated(PARQUETS), odd_tables(BASE).map(parquet_bytes)), ZONES, st.sampled_from(["refuse", "drop"]))
def parquet(content: bytes, zone: str, repair: str) -> None:
    bars("a.parquet", content, timezone=zone, repair=repair, instrument="all")


def dbn_originals() -> list[bytes]:
    import databento_dbn as dbn

    metadata = dbn.Metadata(
        "GLBX.MDP3", 0, dbn.SType.PARENT, dbn.SType.INSTRUMENT_ID, dbn.Schema("ohlcv-1m"), ["ES.FUT"], [], [], []
    )
    rows = [
        dbn.OHLCVMsg(33, 1, 7, 1_710_000_000_000_000_000 + i * 60_000_000_000, 10**9, 2 * 10**9, 10**9, 10**9, 5)
        for i in range(8)
    ]
    whole = bytes(metadata) + b"".join(map(bytes, rows))
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(whole)
    return [whole, sink.getvalue().to_pybytes()]


@given(st.data(), st.sampled_from(["a.dbn", "a.dbn.zst"]))
def dbn(data: st.DataObject, name: str) -> None:
    bars(name, data.draw(mutated(DBN)), repair="drop", instrument="all")


def label_table(num: int = 4) -> pa.Table:
    rng = np.random.default_rng(0)
    close = 100 + np.cumsum(rng.integers(-2, 3, (num, 105)), axis=1) / 4
    windows = np.stack([close, close + 1, close - 1, close + 0.25], axis=2)
    start = pd.date_range("2024-03-04", periods=num, freq="3h", tz="UTC")
    return pa.table(
        {
            "window_id": [f"w{i}" for i in range(num)],
            "label": ["up", "down"] * (num // 2),
            "expansion_start": np.arange(num),
            "expansion_end": 40 + np.arange(num),
            "features": pa.array(windows.tolist(), pa.list_(pa.list_(pa.float64()))),
            "start_time": pa.array(start),
            "end_time": pa.array(start + pd.Timedelta(minutes=104)),
            "instrument": ["ES"] * num,
        }
    )


LABELS = label_table()


@given(st.one_of(mutated([parquet_bytes(LABELS)]), odd_tables(LABELS).map(parquet_bytes)))
def labels(content: bytes) -> None:
    attempt(lambda: read_span_labels(written("labels.parquet", content)))


# --- configurations ---------------------------------------------------------------------------------------------------

KEYS = [*every_key(), "trainer.epoch", "trainer", "", ".", "a.b.c", "trainer.epochs.x", "bars."]
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(10**299), 10**299), st.floats(), st.text(max_size=12),
    st.dates(),
    st.datetimes(), st.binary(max_size=4), st.sampled_from(["1e-4", "none", "null", "auto", "{a: 1}", "[", "13,17",
    "1e400", "²", "٣"]),
)  # fmt: skip
NESTED = st.recursive(
    ODD, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.text(max_size=6),
    st.integers()), inner, max_size=3)), max_leaves=8
)  # fmt: skip


@st.composite
def trees(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = {}
    for _ in range(draw(st.integers(0, 5))):
        section, _, key = draw(st.sampled_from(KEYS)).partition(".")
        tree.setdefault(section, {})[key] = draw(NESTED)
    return tree


@given(st.sampled_from(list(COMMANDS.values())), trees(), st.dictionaries(st.sampled_from(KEYS), ODD, max_size=4))
def config(keys: type[CommandKeys], tree: dict[str, dict[str, Any]], overrides: dict[str, Any]) -> None:
    own = {key: value for key, value in overrides.items() if key in dotted_keys(keys)}
    attempt(lambda: make_config(keys, tree, own).sha256())
    attempt(lambda: make_config(keys, tree, overrides).sha256())


YAMLS = [
    b"trainer: {epochs: 20, batch_size: 64}\nobjective:\n  name: masked\n  mask_ratio: 0.15\n"
    b"split: {train_end: 2024-12-31}\n",
    b"a: &a [x]\nb: &b [*a, *a]\nsweep:\n  space:\n    optimizer.lr: {low: 1e-4, high: 1e-2, log: true}\n"
    b"  enqueue: [{optimizer.lr: 1e-3}]\n",
    b"cv:\n  seeds: [13, 17]\nfinetune: {encoder: 'models:/x@y'}\n<<: {trainer: {epochs: 3}}\n",
]  # fmt: skip
YAML_TOKENS = st.sampled_from(
    [
        b"!!python/object/apply:os.system ['true']", b"!!binary aGk=", b"!!set {a, b}", b"&a [*a]", b"*a", b"<<: *a",
        b"? [a]\n: b", b"---\n",
        b"1:" * 50 + b"1", b"0o7", b"0x" + b"f" * 900, b"9" * 5000, b".nan", b"2024-99-99",
        b"2001-12-14t21:59:43.10-05:00", b"\t", b"[" * 500,
        b"{" * 200, b"- " * 300, b"|\n  x", b"%YAML 9.9\n", b"trainer: {epochs: [1, {a: b}]}", b"\xff", b"\0", b"'",
        b'"\\ud800"',
    ]
)  # fmt: skip


@given(mutated(YAMLS), st.lists(st.tuples(st.floats(0, 1), YAML_TOKENS), max_size=3))
def yaml(content: bytes, inserted: list[tuple[float, bytes]]) -> None:
    for share, token in inserted:
        at = int(share * len(content))
        content = content[:at] + token + content[at:]
    for keys in COMMANDS.values():
        attempt(lambda keys=keys: make_config(keys, read_preset(written("a.yaml", content)), {}).sha256())


TARGETS = {"csv": csv, "parquet": parquet, "dbn": dbn, "labels": labels, "config": config, "yaml": yaml}


def peak_bytes() -> int:
    """Return the peak of this process's resident memory, 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def bounded() -> None:
    """Bound this process's address space and time: what needs more ends it."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    faulthandler.enable()


def main(target: str, num: int) -> None:
    global DBN
    bounded()
    DBN = dbn_originals() if target == "dbn" else []
    before = peak_bytes()

    def hung(*_: object) -> None:
        raise TimeoutError(f"one input took longer than {SECONDS} s")

    signal.signal(signal.SIGALRM, hung)
    test = TARGETS[target]
    inner = test.hypothesis.inner_test

    def timed(*arguments: Any, **keys: Any) -> None:
        signal.alarm(SECONDS)
        try:
            inner(*arguments, **keys)
        finally:
            signal.alarm(0)

    test.hypothesis.inner_test = timed
    phases = [phase for phase in Phase if phase != Phase.explain]
    keys = {"deadline": None, "database": None, "derandomize": False, "phases": phases}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            settings(max_examples=num, suppress_health_check=list(HealthCheck), **keys)(test)()
    except BaseException as e:
        e.__notes__ = [f"the smallest such input lies in {FOLDER}"]  # hypothesis would print the whole of it
        raise
    more = peak_bytes() - before
    assert more < MOST_MORE, f"memory rose by {more / 2**20:,.0f} MiB"
    print(json.dumps({**counts, "more_mib": more // 2**20}))


DBN: list[bytes] = []

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
