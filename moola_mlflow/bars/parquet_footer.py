"""Size of each column of a parquet file, read from its footer and page headers before anything is unpacked.

Why we parse it ourselves: pyarrow 25.0.1 ends the process (SIGABRT) when ``RowGroupMetaData.column`` meets an encrypted
column or a damaged histogram. Reading in batches (``iter_batches``) does not bound memory. Measured before the first
batch arrived: one row of 654 bytes on disk took 1.8 GB, and one page of 50 kB took 0.6 GB.
Source: parquet-format's parquet.thrift; Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from moola_mlflow.core import UserError

MAX_FOOTER_BYTES = 16 * 2**20
"""Some hundred thousand columns times row groups."""
HEAD_BYTES = 1024
"""Bytes of a page read at first. A page header holds the smallest and largest value, which may be long."""
MAX_HEAD_BYTES = HEAD_BYTES * 4**7
MAX_DEPTH = 64
TRUE, FALSE, INT8, INT16, INT32, INT64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
# The numbers of fields in parquet.thrift.
ROW_GROUPS, COLUMNS, META_DATA, CRYPTO_METADATA = 4, 1, 3, 8
NUM_VALUES, COMPRESSED_SIZE, DATA_PAGE, DICTIONARY_PAGE = 5, 7, 9, 11
PAGE_UNPACKED, PAGE_PACKED = 2, 3


class Chunk(NamedTuple):
    """One column of one row group: the number of values it claims, and the bytes that its pages unpack to."""

    num_values: int
    num_bytes: int
    encrypted: bool


def chunks(path: Path) -> Iterator[Chunk]:
    """Yield the size of each column of each row group.

    Raises: UserError for a footer of absurd size; pyarrow's ArrowInvalid for a damaged file.
    """
    with path.open("rb") as f:
        end = f.seek(-8, 2)
        num_bytes = int.from_bytes(f.read(4), "little")
        if num_bytes > MAX_FOOTER_BYTES:
            raise UserError(
                f"{path}: its footer has {num_bytes / 2**20:,.0f} MiB, at most {MAX_FOOTER_BYTES >> 20} MiB are read; "
                "write it with larger row groups or fewer columns"
            )
        f.seek(max(0, end - num_bytes))
        footer = _Compact(f.read(num_bytes))
        room = end
        try:
            for entry, encrypted in _entries(footer):
                room -= entry[COMPRESSED_SIZE]
                if room < 0 or min(entry[DATA_PAGE], entry[COMPRESSED_SIZE]) < 0:
                    raise ValueError("its columns do not fit into the file")
                yield Chunk(entry[NUM_VALUES], 0 if encrypted else _unpacked(f, entry, end), encrypted)
        except (IndexError, ValueError) as e:
            raise pa.ArrowInvalid(f"it is damaged: {e}") from None


def _entries(footer: _Compact) -> Iterator[tuple[dict[int, int], bool]]:
    """Yield the numbers of each column of each row group, and whether it is encrypted."""
    for _ in footer.structs(ROW_GROUPS):
        for _ in footer.structs(COLUMNS):
            entry = dict.fromkeys((NUM_VALUES, COMPRESSED_SIZE, DATA_PAGE, DICTIONARY_PAGE), 0)
            encrypted = False
            for number, kind in footer.fields():
                encrypted |= number == CRYPTO_METADATA
                if (number, kind) == (META_DATA, STRUCT):
                    footer.numbers(entry, INT64)
                else:
                    footer.skip(kind)
            yield entry, encrypted


def _unpacked(f: BinaryIO, entry: dict[int, int], end: int) -> int:
    """Return the bytes that a column's pages unpack to, headers included. A footer counts them the same way."""
    if entry[NUM_VALUES] <= 0:
        return 0  # without values there is no page, and the offsets mean nothing
    at = entry[DATA_PAGE]
    if 0 < entry[DICTIONARY_PAGE] < at:
        at = entry[DICTIONARY_PAGE]
    after, total = at + entry[COMPRESSED_SIZE], 0
    if after > end:
        raise ValueError("a column lies outside of the file")
    while at < after:
        length, unpacked, packed = _page(f, at)
        at += length + packed
        total += length + unpacked
    return total


def _page(f: BinaryIO, at: int) -> tuple[int, int, int]:
    """Return the bytes of a page's header, and of its content, unpacked and packed."""
    num_bytes = HEAD_BYTES
    while True:
        f.seek(at)
        head = _Compact(f.read(num_bytes))
        sizes = {PAGE_UNPACKED: -1, PAGE_PACKED: -1}
        try:
            head.numbers(sizes, INT32)
            break
        except IndexError:
            if len(head.content) < num_bytes or num_bytes >= MAX_HEAD_BYTES:
                raise
            num_bytes *= 4
    if min(sizes.values()) < 0:
        raise ValueError("a page without its size")
    return head.at, sizes[PAGE_UNPACKED], sizes[PAGE_PACKED]


class _Compact:
    """Read Thrift's compact protocol from front to back. Other bytes raise IndexError or ValueError."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("a number of more than ten bytes")

    def integer(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield number and kind of each field of a struct. The caller reads or skips its value."""
        number = 0
        while kind := (head := self.byte()) & 15:
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, kind

    def numbers(self, wanted: dict[int, int], wanted_kind: int) -> None:
        """Read a struct, and store its numbers of one kind in the fields that ``wanted`` has."""
        for number, kind in self.fields():
            if number in wanted and kind == wanted_kind:
                wanted[number] = self.integer()
            else:
                self.skip(kind)

    def structs(self, wanted: int) -> Iterator[None]:
        """Read a struct. Stop at each struct of the list in one field, for the caller to read it."""
        for number, kind in self.fields():
            if (number, kind) == (wanted, LIST):
                for inner in self.elements():
                    if inner != STRUCT:
                        raise ValueError(f"a list of kind {inner}, not {STRUCT}")
                    yield
            else:
                self.skip(kind)

    def elements(self) -> Iterator[int]:
        """Yield the kind of each element of a list or set. The caller reads or skips its value."""
        head = self.byte()
        num, kind = head >> 4, head & 15
        for _ in range(self.varint() if num == 15 else num):
            yield kind

    def skip(self, kind: int, depth: int = 0, *, listed: bool = False) -> None:
        """Skip a value. A boolean is part of its field's header, but one byte in a list."""
        if depth > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        if kind in (TRUE, FALSE):
            self.at += listed
        elif kind == INT8:
            self.at += 1
        elif kind in (INT16, INT32, INT64):
            self.varint()
        elif kind == DOUBLE:
            self.at += 8
        elif kind == BINARY:
            length = self.varint()  # before the addition: reading it moves `at`
            self.at += length
        elif kind in (LIST, SET):
            for inner in self.elements():
                self.skip(inner, depth + 1, listed=True)
                self._within()
        elif kind == MAP:
            if num := self.varint():
                kinds = self.byte()
                for _ in range(num):
                    self.skip(kinds >> 4, depth + 1, listed=True)
                    self.skip(kinds & 15, depth + 1, listed=True)
                    self._within()
        elif kind == STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        else:
            raise ValueError(f"a value of kind {kind}")

    def _within(self) -> None:
        if self.at > len(self.content):
            raise IndexError("it ends too soon")
