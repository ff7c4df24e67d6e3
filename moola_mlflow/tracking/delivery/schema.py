"""The kinds of events in a run's journal, and the fields that each needs.

A run folder may come from anywhere, and its events decide which files are sent and then deleted. So every line is
checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

KEY = re.compile(r"[0-9a-f]{32}")
"""Key of an event. It is also the folder name where the event's files wait, so it must not lead anywhere else."""
CHECKSUM = re.compile(rb', "sum": "([0-9a-f]{16})"\}$')
"""End of a line: the checksum of what stands before it."""
LATEST_TIME_S = 1e11
"""The year 5138: a later time is damage."""


def event_line(record: dict[str, Any]) -> bytes:
    """Return an event as a line of a journal, with its checksum."""
    body = json.dumps(record).encode()
    return body[:-1] + f', "sum": "{_checksum(body[:-1])}"}}\n'.encode()


def _checksum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


def parse_event(line: bytes) -> dict[str, Any] | None:
    """Return the event in a line of a journal, or None if the line is damaged or a field has the wrong type.

    Journals of version 0.2 have no checksums. A line without one may have the keys of that version alone: a line whose
    checksum is damaged is no line of that version.
    """
    line = line.rstrip()
    found = CHECKSUM.search(line)
    if found and found[1].decode() != _checksum(line[: found.start()]):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not is_time(record.get("at", 0)):
        return None
    if found:
        del record["sum"]
    elif record.keys() - FIRST_KEYS:
        return None
    needed = NEEDED.get(str(record.get("kind")))
    if needed is None:  # a kind that a later version wrote: this version ignores it
        return record
    whole = needed <= record.keys() and all(check(record[name]) for name, check in FIELDS.items() if name in record)
    return record if whole else None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or _is_integer(value)


def is_time(value: Any) -> bool:
    """Return whether a value is a possible time, in seconds since 1970."""
    return _is_number(value) and 0 <= value < LATEST_TIME_S


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _are_figures(value: Any) -> bool:
    return isinstance(value, dict) and all(one is None or _is_number(one) for one in value.values())


def _are_files(value: Any) -> bool:
    """Return whether a value lists path, SHA-256 and number of rows of files."""
    return isinstance(value, list) and all(
        isinstance(file, list) and len(file) == 3 and all(map(_is_text, file[:2])) and _is_integer(file[2])
        for file in value
    )


def _is_new_run(value: Any) -> bool:
    """Return whether a value describes a run that the store must still make."""
    return (
        isinstance(value, dict)
        and all(map(_is_text, (value.get("name"), value.get("experiment"))))
        and _are_texts(value.get("tags"))
        and _is_integer(value.get("at_ms"))
    )


def _all(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


FIELDS: dict[str, Callable[[Any], bool]] = {
    "context": _is_text,
    "files": _are_files,
    "final": _are_figures,
    "key": lambda value: _is_text(value) and KEY.fullmatch(value) is not None,
    "make": _is_new_run,
    "metrics": _are_figures,
    "model": ("encoder", "detector").__contains__,
    "name": _is_text,
    "names": _all(_is_text),
    "note": lambda value: value is None or _is_text(value),
    "params": _are_texts,
    "run_id": _is_text,
    "seconds": lambda value: _is_number(value) and abs(value) < LATEST_TIME_S,
    "series": _all(_are_figures),
    "status": ("FINISHED", "FAILED", "KILLED").__contains__,
    "step": _is_integer,
    "tables": _all(_is_text),
    "tags": _are_texts,
}
"""What a field of an event may hold, in an event of any kind."""
FIRST_KEYS = {*FIELDS, "at", "kind", "running", "show"}
"""Keys of the events of version 0.2."""
NEEDED = {
    "begin": frozenset[str](),
    "handover": {"run_id"},
    "params": {"params"},
    "tags": {"tags"},
    "metrics": {"metrics", "step"},
    "inputs": {"files"},
    "child": {"key", "name", "seconds", "tags", "params", "series", "final"},
    "artifacts": {"key", "names"},
    "register": {"key", "model", "name", "tags"},
    "status": {"status"},
}
"""Fields that an event must have, by its kind."""
