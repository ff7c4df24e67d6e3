"""Read one-minute bars from Databento's binary files, ``.dbn`` and ``.dbn.zst``.

This needs the extra ``databento``. Only its decoder is used, so neither a network nor a key is needed.
"""

from __future__ import annotations

import datetime as dt
import io
import re
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from moola_mlflow.bars.size_limits import Unpacked
from moola_mlflow.core import UserError

ZSTD = b"\x28\xb5\x2f\xfd"
MAX_HEADER = 64 * 2**20
"""Limit of the header, which lists every symbol by date. All options of a day take a few MiB."""
BLOCK_RECORDS = 2**18
FIXED_POINT = 1e9
UNDEFINED_PRICE = 2**63 - 1
UNDEFINED_TIME = 2**64 - 1
DAY_NS = 86_400_000_000_000
NUMBER = re.compile(r"[0-9]{1,10}")


def read_dbn(path: Path) -> pa.Table:
    """Return the bars of a DBN file as a table in the layout of ``databento.DBNStore.to_df()``.

    Raises: UserError if the decoder is not installed, or if the file is damaged, cut short, or holds other records.
    """
    decoder = _decoder()
    with path.open("rb") as f:
        magic = f.read(4)
    if magic != ZSTD and magic[:3] != b"DBN":
        raise UserError(f"{path}: is not DBN in spite of its name; download it again, or name it after what it is")
    with io.BufferedReader(Unpacked(path, "zstd" if magic == ZSTD else None), 2**20) as stream:
        metadata = _metadata(decoder, cast(BinaryIO, stream), path)
        kind = np.dtype(decoder.OHLCVMsg._dtypes)
        records = _records(cast(BinaryIO, stream), kind, path)
    keys, ns = records["instrument_id"], records["ts_event"]
    columns: dict[str, Any] = {
        "ts_event": pa.array(ns.view(np.int64), pa.timestamp("ns", "UTC"), mask=ns == np.uint64(UNDEFINED_TIME)),
        "rtype": np.ascontiguousarray(records["rtype"]),
        "publisher_id": np.ascontiguousarray(records["publisher_id"]),
        "instrument_id": np.ascontiguousarray(keys),
    }
    for name in ("open", "high", "low", "close"):
        price = np.ascontiguousarray(records[name])
        columns[name] = np.where(price == UNDEFINED_PRICE, np.nan, price / FIXED_POINT)
    columns["volume"] = np.ascontiguousarray(records["volume"])
    columns["symbol"] = _symbols(metadata.mappings, np.ascontiguousarray(keys), np.ascontiguousarray(ns))
    return pa.table(columns)


def _decoder() -> Any:
    try:
        import databento_dbn
    except ModuleNotFoundError:
        raise UserError(
            "DBN files need the package databento: pip install -e '.[databento]'; or convert them once where it is: "
            "databento.DBNStore.from_file(path).to_df().to_parquet('bars.parquet')"
        ) from None
    return databento_dbn


def _metadata(decoder: Any, stream: BinaryIO, path: Path) -> Any:
    head = stream.read(8)
    size = int.from_bytes(head[4:], "little")
    if len(head) < 8 or head[:3] != b"DBN" or size > MAX_HEADER:
        raise UserError(f"{path}: cannot be read as DBN (its header is damaged); download it again")
    try:
        metadata = decoder.Metadata.decode(head + stream.read(size))
    except KeyboardInterrupt:
        raise
    except BaseException as e:  # the decoder panics with an error that is no Exception
        first = " ".join(str(e).split())[:200]
        raise UserError(f"{path}: cannot be read as DBN ({first}); download it again") from None
    if metadata.schema is not None and str(metadata.schema) != "ohlcv-1m":
        raise UserError(f"{path}: holds {metadata.schema}, not one-minute bars; ask Databento for the schema ohlcv-1m")
    if metadata.ts_out:
        raise UserError(f"{path}: is a recorded live stream with sending times; save the bars as historical ohlcv-1m")
    return metadata


def _records(stream: BinaryIO, kind: np.dtype, path: Path) -> np.ndarray:
    """Return all records. Shapes: structured [N]."""
    blocks: list[np.ndarray] = []
    while content := stream.read(BLOCK_RECORDS * kind.itemsize):
        if len(content) % kind.itemsize:
            num_whole = sum(len(block) for block in blocks) + len(content) // kind.itemsize
            raise UserError(
                f"{path}: ends in the middle of a record, after {num_whole:,} bars; the file was cut short, download "
                "it again"
            )
        block = np.frombuffer(content, kind)
        if (block["length"] != kind.itemsize // 4).any():  # a record's length is in units of four bytes
            raise UserError(f"{path}: holds records that are not bars; ask Databento for the schema ohlcv-1m only")
        blocks.append(block)
    return np.concatenate(blocks) if blocks else np.zeros(0, kind)


def _symbols(mappings: dict[str, list[dict[str, Any]]], keys: np.ndarray, ns: np.ndarray) -> pa.DictionaryArray:
    """Return the symbol of each record. An id may have different symbols on different days.

    Shapes: keys, ns [N] -> text [N], null if the header has no symbol for that day.
    """
    names: dict[str, int] = {}
    spans: dict[int, list[tuple[int, int, int]]] = {}
    for text, intervals in mappings.items():
        for interval in intervals:
            # Either side may be the id: it depends on the symbol type of the request.
            other = interval["symbol"]
            symbol, key = (text, other) if NUMBER.fullmatch(other) else (other, text)
            if NUMBER.fullmatch(key) and symbol:
                first, last = _days(interval["start_date"]), _days(interval["end_date"])
                spans.setdefault(int(key), []).append((first, last, names.setdefault(symbol, len(names))))
    codes = np.full(len(keys), -1, np.int32)
    present, which = np.unique(keys, return_inverse=True)
    order = np.argsort(which, kind="stable")
    bounds = np.searchsorted(which[order], np.arange(len(present) + 1))
    day = (ns // np.uint64(DAY_NS)).astype(np.int64)
    for k, key in enumerate(present.tolist()):
        rows = order[bounds[k] : bounds[k + 1]]
        for first, last, code in spans.get(key, ()):
            within = (day[rows] >= first) & (day[rows] < last)
            codes[rows[within]] = code
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(list(names), pa.string()))


def _days(date: dt.date) -> int:
    return (dt.date(date.year, date.month, date.day) - dt.date(1970, 1, 1)).days
