"""A line of a journal is an event only if every field of it is what its kind needs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moola_mlflow.tracking.delivery.schema import NEEDED, is_time, parse_event

KEY = "0123456789abcdef" * 2
WHOLE: dict[str, dict[str, Any]] = {
    "begin": {},
    "handover": {"run_id": "abc"},
    "params": {"params": {"seed": "17"}},
    "tags": {"tags": {"a": "b"}},
    "metrics": {"metrics": {"loss": 0.5, "none": None}, "step": 3},
    "inputs": {"files": [["es.csv", "0" * 64, 3]]},
    "child": {
        "key": KEY,
        "name": "fold 1",
        "seconds": 2.5,
        "tags": {},
        "params": {},
        "series": [{"a": 1}],
        "final": {},
    },
    "artifacts": {"key": KEY, "names": ["a.txt"]},
    "register": {"key": KEY, "model": "encoder", "name": "moola-encoder", "tags": {}},
    "status": {"status": "FINISHED"},
}


def parsed(kind: str, **fields: Any) -> dict[str, Any] | None:
    return parse_event(json.dumps({"at": 1.0, "kind": kind, **WHOLE.get(kind, {}), **fields}).encode())


def test_every_kind_is_tried_here() -> None:
    assert set(WHOLE) == set(NEEDED)


@pytest.mark.parametrize("kind", NEEDED)
def test_a_whole_event_is_taken_and_one_without_a_field_is_not(kind: str) -> None:
    assert parsed(kind) == {"at": 1.0, "kind": kind, **WHOLE[kind]}
    for missing in NEEDED[kind]:
        fields = {name: value for name, value in WHOLE[kind].items() if name != missing}
        assert parse_event(json.dumps({"at": 1.0, "kind": kind, **fields}).encode()) is None, missing


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("metrics", {"step": 1.5}),
        ("metrics", {"step": 2**63}),
        ("metrics", {"metrics": {"a": "high"}}),
        ("params", {"params": {"a": 1}}),
        ("artifacts", {"key": "../../home"}),
        ("artifacts", {"key": KEY + "0"}),
        ("artifacts", {"key": KEY.upper()}),
        ("artifacts", {"names": "a.txt"}),
        ("register", {"model": "weights"}),
        ("inputs", {"files": [["es.csv", "0" * 64]]}),
        ("inputs", {"files": [["es.csv", 0, 3]]}),
        ("status", {"status": "RUNNING"}),
        ("child", {"seconds": 1e12}),
        ("child", {"series": [{"a": []}]}),
        ("status", {"at": -1}),
        ("status", {"at": 1e12}),
        ("status", {"at": "noon"}),
    ],
)
def test_a_field_of_the_wrong_shape_makes_no_event(kind: str, fields: dict[str, Any]) -> None:
    assert parsed(kind, **fields) is None


@pytest.mark.parametrize("line", [b"", b"{", b"null", b"[1]", b'"x"', b"\xff", b"[" * 100_000, b'{"at": "noon"}'])
def test_a_line_that_is_no_object_makes_no_event(line: bytes) -> None:
    assert parse_event(line) is None


def test_a_kind_of_a_later_version_is_let_through_with_any_fields() -> None:
    assert parsed("picture", key="anything", step="late") is not None


@pytest.mark.parametrize(("value", "expected"), [(0, True), (1.5e9, True), (-0.1, False), (1e11, False), (None, False)])
def test_a_time_lies_between_1970_and_the_year_5138(value: Any, expected: bool) -> None:
    assert is_time(value) is expected
