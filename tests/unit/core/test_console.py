"""Output that cannot be written ends no command, and no control character of data reaches a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from moola_mlflow.core import console
from moola_mlflow.core.console import SteadyStream, visible
from moola_mlflow.core.errors import printable

EVIL = "a\x1b]0;title\x07b\rc\u202ed\u2066e\x9bf\x00"


def test_control_and_direction_characters_are_written_out_and_others_stay() -> None:
    assert visible(EVIL) == r"a\x1b]0;title\x07b\rc\u202ed\u2066e\x9bf\x00"
    assert visible("Grüße\t日本\n😀 | – é") == "Grüße\t日本\n😀 | – é"
    assert printable(EVIL) == visible(EVIL)


def test_all_that_is_printed_is_clean_and_a_display_writes_its_own_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    below = io.StringIO()
    monkeypatch.setattr(sys, "stdout", below)
    console.guard_console()
    console.guard_console()  # once more changes nothing
    print(EVIL)
    assert below.getvalue() == visible(EVIL) + "\n"
    print("\x1b[2K", file=console.display_stream(), end="")
    assert below.getvalue().endswith("\x1b[2K")


class Full(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_under_the_output_is_no_error_unless_its_reader_matters() -> None:
    stream = SteadyStream(Full())
    assert stream.write("abc") == 3
    stream.flush()
    with pytest.raises(OSError, match="No space"):
        SteadyStream(Full(), raises=True).write("abc")


SCRIPT = """
import sys
from moola_mlflow.core.console import guard_console, settle_console, reader_stream
guard_console()
{lines}
settle_console()
sys.exit(3)
"""
TALK = "for _ in range(200_000): print('a line that fills the pipe')"


@pytest.mark.parametrize("where", ["closed pipe", "full disk"])
def test_the_exit_code_is_the_commands_whatever_becomes_of_its_output(where: str) -> None:
    reading, writing = os.pipe() if where == "closed pipe" else (None, os.open("/dev/full", os.O_WRONLY))
    if reading is not None:
        os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(lines=TALK)], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (3, "")


def test_a_reader_that_matters_is_missed_when_it_goes() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    lines = "try: print('x', file=reader_stream(), flush=True)\nexcept BrokenPipeError: sys.exit(7)"
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(lines=lines)], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == 7
