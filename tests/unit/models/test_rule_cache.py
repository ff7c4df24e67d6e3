"""Targets of rules are computed once for a data set: later runs read them, and a file that is not whole is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import windows

from moola_mlflow.models.objectives import rule_cache, rule_targets
from moola_mlflow.models.objectives.rule_cache import KeptTargets, read_targets, write_targets
from moola_mlflow.models.objectives.rule_targets import RuleTargets, make_targets
from moola_mlflow.windows import Batch

NUM_RULES = 4
PRICES = windows(40)


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rule_cache, "LEAST", 1)
    monkeypatch.setattr(rule_targets, "_LATEST", {})


def batches(prices: np.ndarray = PRICES) -> list[Batch]:
    whole = torch.from_numpy(prices)
    parts = np.array_split(np.arange(len(prices)), 3)
    return [Batch(torch.zeros(len(part), 105, 1), whole[part], part, 20) for part in parts]


def made(num: int = NUM_RULES, family: str = "strict", seed: int = 0, prices: np.ndarray = PRICES) -> RuleTargets:
    rule_targets._LATEST.clear()  # as in another process
    return make_targets(batches(prices), num, family, seed)


def files() -> list[Path]:
    return sorted(rule_cache.FOLDER.iterdir()) if rule_cache.FOLDER.is_dir() else []


def forbid_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("targets are computed again")

    monkeypatch.setattr(rule_targets, "draw_rules", refuse)
    monkeypatch.setattr(rule_targets, "apply_rules", refuse)


def assert_same(one: RuleTargets, other: RuleTargets) -> None:
    assert one.rules == other.rules
    for batch in batches():
        np.testing.assert_array_equal(one(batch), other(batch))


def test_a_second_run_reads_what_the_first_computed_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    first = made()
    (file,) = files()
    assert first.note == ""
    with monkeypatch.context() as patched:
        forbid_computing(patched)
        second = made()
        assert_same(first, second)
    assert second.note == f"Targets of {NUM_RULES} rules: read from {file}"
    more = batches(windows(9, seed=8))[0]  # windows of another part of the bars, under numbers that are known
    np.testing.assert_array_equal(second(more), first(more))


@pytest.mark.parametrize("other", [{"seed": 1}, {"num": 3}, {"family": "broad"}, {"prices": PRICES + 0.25}])
def test_other_rules_or_bars_have_a_file_of_their_own(other: dict[str, object]) -> None:
    made()
    assert made(**other).note == ""  # type: ignore[arg-type]
    assert len(files()) == 2


def test_targets_of_other_code_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made()
    monkeypatch.setattr(rule_targets, "rules_version", lambda: "another")
    assert made().note == ""
    assert len(files()) == 2


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flipped(data: bytes) -> bytes:
    return data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]


@pytest.mark.parametrize("damage", [_cut, _flipped, lambda data: b"", lambda data: b"\x80\x04." + data])
def test_a_damaged_file_is_made_again(damage) -> None:  # type: ignore[no-untyped-def]
    first = made()
    (file,) = files()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    again = made()
    assert again.note == ""
    assert_same(first, again)
    assert made().note


def test_a_file_of_another_number_of_rules_or_another_kind_of_numbers_is_none() -> None:
    marks, prices = np.zeros((5, 3, 2), np.int16), np.zeros((5, 3))
    write_targets("key", KeptTargets(("a", "b"), marks, prices))
    kept = read_targets("key", 2)
    assert kept is not None
    assert kept.names == ("a", "b")
    assert read_targets("key", 3) is None
    for broken in ((marks.astype(np.int32), prices), (marks, prices[:4]), (marks[:, :2], prices)):
        write_targets("key", KeptTargets(("a", "b"), *broken))
        assert read_targets("key", 2) is None


def test_two_processes_may_write_at_once_and_a_reader_finds_a_whole_file() -> None:
    kept = KeptTargets(("a", "b"), np.arange(3000, dtype=np.int16).reshape(500, 3, 2), np.ones((500, 3)))
    write_targets("key", kept)

    def work(i: int) -> bool:
        if i % 2:
            write_targets("key", kept)
            return True
        found = read_targets("key", 2)
        return found is not None and found.sha256() == kept.sha256()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(80)))
    assert [file.name for file in files()] == ["key.safetensors"]


def test_the_folder_is_bounded_and_keeps_what_was_read_last(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptTargets(("a", "b"), np.zeros((100, 3, 2), np.int16), np.zeros((100, 3)))
    for i, key in enumerate("abc"):
        write_targets(key, kept)
        os.utime(rule_cache.path_of(key), (1000 + i, 1000 + i))
    left = rule_cache.FOLDER / ".dead.tmp"
    left.write_bytes(b"half")
    os.utime(left, (1000, 1000))
    size = rule_cache.path_of("a").stat().st_size
    monkeypatch.setattr(rule_cache, "LARGEST", int(3.5 * size))
    assert read_targets("a", 2) is not None
    write_targets("d", kept)
    assert [file.stem for file in files()] == ["a", "c", "d"]
    monkeypatch.setattr(rule_cache, "LARGEST", size)
    write_targets("e", kept)  # too large a share of the folder
    assert not rule_cache.path_of("e").exists()


def test_a_folder_that_cannot_be_made_only_costs_time() -> None:
    Path(".moola").write_text("a file")
    assert made().note == ""
    assert made().note == ""


def test_few_windows_are_computed_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rule_cache, "LEAST", NUM_RULES * len(PRICES) + 1)
    made()
    assert files() == []


def test_batches_are_read_once_where_the_targets_are_known() -> None:
    passes = []

    class Counted:
        def __iter__(self) -> Iterator[Batch]:
            passes.append(1)
            return iter(batches())

    for _ in range(2):
        rule_targets._LATEST.clear()
        make_targets(Counted(), NUM_RULES, "strict", 0)
    assert len(passes) == 2 + 1
