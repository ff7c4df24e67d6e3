"""What a parquet file holds, by its footer and the heads of its pages, before a reader unpacks anything.

pyarrow is not asked. Version 25.0.1 ends the process (SIGABRT) when ``RowGroupMetaData.column`` meets an entry that it
dislikes: one that is encrypted, or a histogram that one flipped bit no longer lets fit the schema. Its C++ throws, and
nothing there catches that; its reading of columns raises for the same files. And how much a page unpacks to stands in
the page's head, whatever the footer says.
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
"""Of a page, tried first: a head holds the page's least and greatest value, which may be long."""
MAX_HEAD_BYTES = HEAD_BYTES * 4**7
MAX_DEPTH = 64
TRUE, FALSE, INT8, INT16, INT32, INT64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
# The numbers of fields in parquet.thrift.
ROW_GROUPS, COLUMNS, META_DATA, CRYPTO_METADATA = 4, 1, 3, 8
NUM_VALUES, COMPRESSED_SIZE, DATA_PAGE, DICTIONARY_PAGE = 5, 7, 9, 11
PAGE_UNPACKED, PAGE_PACKED = 2, 3


class Chunk(NamedTuple):
    """One column of one row group: how many values it claims to have, and to how many bytes its pages unpack."""

    num_values: int
    num_bytes: int
    encrypted: bool


def chunks(path: Path) -> Iterator[Chunk]:
    """Yield what is known of each column of each row group.

    Raises: UserError for a footer of absurd size; pyarrow's ArrowInvalid for a file that is damaged.
    """
    with path.open("rb") as f:
        end = f.seek(-8, 2)
        num_bytes = int.from_bytes(f.read(4), "little")
        if num_bytes > MAX_FOOTER_BYTES:
            raise UserError(
                f"{path}: its footer has {num_bytes / 2**20:,.0f} MiB, at most {MAX_FOOTER_BYTES >> 20} are read; "
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
    """Return to how many bytes a column's pages unpack, with their heads, as a footer counts them."""
    if entry[NUM_VALUES] <= 0:
        return 0  # no page is read, and no offset means anything
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
    """Return the bytes of a page's head, and those of what follows, unpacked and packed."""
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
    """Thrift's compact protocol, read from front to back; IndexError or ValueError where the bytes are none of it."""

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
        """Yield number and kind of each field of a struct, whose value the caller reads or skips."""
        number = 0
        while kind := (head := self.byte()) & 15:
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, kind

    def numbers(self, wanted: dict[int, int], wanted_kind: int) -> None:
        """Read a struct; put its numbers of one kind in place of those that ``wanted`` has by the same field."""
        for number, kind in self.fields():
            if number in wanted and kind == wanted_kind:
                wanted[number] = self.integer()
            else:
                self.skip(kind)

    def structs(self, wanted: int) -> Iterator[None]:
        """Read a struct; stop at each struct of a list that it holds, which the caller reads."""
        for number, kind in self.fields():
            if (number, kind) == (wanted, LIST):
                for inner in self.elements():
                    if inner != STRUCT:
                        raise ValueError(f"a list of kind {inner}, not {STRUCT}")
                    yield
            else:
                self.skip(kind)

    def elements(self) -> Iterator[int]:
        """Yield the kind of each element of a list or set, whose value the caller reads or skips."""
        head = self.byte()
        num, kind = head >> 4, head & 15
        for _ in range(self.varint() if num == 15 else num):
            yield kind

    def skip(self, kind: int, depth: int = 0, *, listed: bool = False) -> None:
        """Pass over a value; a truth value is part of its field's head, and a byte in a list."""
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
            length = self.varint()  # which reads on: not to be added to where it began
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
