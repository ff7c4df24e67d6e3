"""Nothing that the documents tell a reader to type is left untried in silence."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import pytest
from command_lines import spoken
from documented import NOT_RUN, PAGES, PYTHON_BY, ROOT, RUN_BY, blocks, commands, reasons

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.cli.entry_points import ENTRY_POINTS
from moola_mlflow.cli.parser import parse
from moola_mlflow.core import BarsConfig

TYPED = [(page, line) for page in PAGES for line, _ in commands(page)]
TEST_FILES = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
SPAN = re.compile(r"`([^`\n]+)`")


def test_every_command_of_every_page_is_run_or_has_one_reason_not_to_be() -> None:
    assert len(TYPED) > 100
    assert [f"{page}: {line}" for page, line in TYPED if not reasons(page, line) and page not in RUN_BY] == []
    assert [f"{page}: {line}" for page, line in TYPED if len(reasons(page, line)) > 1] == []


def test_every_reason_not_to_run_a_command_is_still_needed_and_names_tests_that_exist() -> None:
    met = {pattern for page, line in TYPED for pattern in reasons(page, line)}
    assert [pattern for pattern in NOT_RUN if pattern not in met] == []
    named = {*re.findall(r"test_\w+\.py", " ".join(NOT_RUN.values())), *RUN_BY.values()}
    assert sorted(named - TEST_FILES) == []


def test_every_page_with_python_is_run_by_a_test_that_names_it_or_takes_its_blocks() -> None:
    assert {page for page in PAGES if blocks(page, "python")} == set(PYTHON_BY)
    assert sorted(set(PYTHON_BY.values()) - TEST_FILES) == []


def spans(page: str) -> list[str]:
    """What a page's text sets in code."""
    return SPAN.findall((ROOT / page).read_text(encoding="utf-8"))


def named_commands() -> Iterator[tuple[str, list[str]]]:
    """Name and words of what pages give as `moola NAME ...` or `mlflow run . ...`, in the text and in blocks that no
    test runs, as those of the reference."""
    for page in PAGES:
        for line in [*spans(page), *(line for line, _ in commands(page) if reasons(page, line))]:
            if line.startswith(("moola ", "mlflow run . ")) and not re.search(r"--help|\.\.\.|<[a-z]+ id>", line):
                name, words = spoken(line)
                if name in ENTRY_POINTS:
                    yield name, words


def test_every_command_in_the_text_and_every_one_that_no_test_runs_is_understood() -> None:
    found = list(named_commands())
    assert {name for name, _ in found} == set(ENTRY_POINTS)
    assert len(found) > 40
    for name, words in found:
        parse(name, words)


def benchmark_words() -> Iterator[str]:
    """What pages write behind `python -m benchmarks.`, in blocks and in the text."""
    for page in PAGES:
        for line in [*spans(page), *(line for line, _ in commands(page))]:
            if line.startswith("python -m benchmarks."):
                yield line.removeprefix("python -m benchmarks.")


class Parsed(Exception):
    """The words were understood."""


@pytest.mark.parametrize("line", sorted(set(benchmark_words())))
def test_every_benchmark_that_a_page_names_takes_the_words_it_is_given(
    monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    name, *words = shlex.split(line)
    source = (ROOT / "benchmarks").joinpath(*name.split("."))
    source = source / "__main__.py" if source.is_dir() else source.with_suffix(".py")
    if "parse_args()" not in source.read_text(encoding="utf-8"):
        assert words == []
        return
    understood = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *given: Any) -> NoReturn:
        understood(parser, *given)
        raise Parsed

    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [name, *words])
    module = importlib.import_module(f"benchmarks.{name}" + (".__main__" if source.name == "__main__.py" else ""))
    with pytest.raises(Parsed):
        module.main()


def test_the_example_request_holds_windows_of_the_example_bars() -> None:
    examples = ROOT / "examples"
    bars = read_bars(BarsConfig(path=str(examples / "bars.csv")))
    windows = np.array(json.loads((examples / "request.json").read_text(encoding="utf-8"))["inputs"])
    assert windows.shape[1:] == (105, 4)
    np.testing.assert_array_equal(windows.reshape(-1, 4), bars.ohlc[: 105 * len(windows)])
