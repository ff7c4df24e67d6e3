"""YAML that is safe to read: a small file never takes more than a moment, nor much memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml

from moola_mlflow.core.config.base import read_yaml
from moola_mlflow.core.errors import MAX_SHOWN, printable

LAUGH = "\n".join(["a0: &a0 [x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)])
MERGED = "b: &b {k: 1}\n" + "".join(f"c{i}: {{<<: *b}}\n" for i in range(2000))
BOMBS = {
    "references": (LAUGH, "values once its references are followed"),
    "merge keys": (MERGED, "a merge key"),
    "nested merge keys": ("a: &a {k: 1}\nb: &b {<<: [*a, *a]}\n", "a merge key"),
    "long whole number": ("a: " + "9" * 900_000, "more than 300 digits"),
    "long binary number": ("a: 0b" + "1" * 900_000, "more than 300 digits"),
    "long float": ("a: " + "1_" * 400_000 + "1.0", "more than 300 digits"),
    "brackets": ("[" * 100_000, "nested more than 40 deep"),
    "questions": ("? " * 50_000 + "a", "nested more than 40 deep"),
    "many values": ("a: [" + "1, " * 60_000 + "1]", "it holds more than"),
}
LIMITS = """
import resource, sys, time
from moola_mlflow.core.config.base import read_yaml
from moola_mlflow.core.errors import printable
text = sys.stdin.read()
printable("warm"), read_yaml("a: 1")
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    {call}(text)
except Exception:
    pass
print(time.process_time() - started, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def cost(call: str, text: str) -> tuple[float, float]:
    """Seconds of the processor and MB that a call takes in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITS.format(call=call)], input=text, capture_output=True, text=True, check=True
    )
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_under_a_second_and_200_mb(name: str) -> None:
    text, said = BOMBS[name]
    with pytest.raises(ValueError, match=said):
        read_yaml(text)
    seconds, megabytes = cost("read_yaml", text)
    assert seconds < 1
    assert megabytes < 200


def test_a_number_to_the_base_of_60_stays_text_and_other_numbers_are_numbers() -> None:
    assert read_yaml("a: 12:30\nb: 1:30.5\nc: 0x1f\nd: 1.5\ne: -3\nf: 1e-4") == {
        "a": "12:30", "b": "1:30.5", "c": 31, "d": 1.5, "e": -3, "f": "1e-4",
    }  # fmt: skip
    seconds, _ = cost("read_yaml", "a: " + ":".join(["1", *["59"] * 150_000]))
    assert seconds < 1


def test_code_is_refused_and_references_are_read() -> None:
    with pytest.raises(yaml.YAMLError):
        read_yaml("a: !!python/object/apply:os.system [ls]")
    assert read_yaml("a: &x [1]\nb: *x") == {"a": [1], "b": [1]}


@pytest.mark.parametrize("part", ["a://", "x://:", "?pass", "[Errno ", "@a:", "a_token=", "_", "` *"])
def test_an_error_of_a_million_characters_is_shown_in_under_a_second(part: str) -> None:
    text = part * (1_000_000 // len(part))
    shown = printable(text)
    assert len(shown) < 3 * MAX_SHOWN
    assert "characters left out" in shown
    seconds, _ = cost("printable", text)
    assert seconds < 1
