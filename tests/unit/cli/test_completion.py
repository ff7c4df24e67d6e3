"""What `moola` says to a terminal, to a pipe, and to a shell that completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from moola_mlflow.cli.entry_points import ENTRY_POINTS
from moola_mlflow.core import PretrainKeys, dotted_keys


def moola(*words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "moola_mlflow", *words],
        capture_output=True, text=True, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last word."""
    typed = " ".join(f"'{word}'" for word in words)
    ask = f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _moola; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not in the PATH")
def test_bash_completes_commands_short_parameters_and_dotted_keys() -> None:
    script = moola("completion")
    assert set(completed(script, "moola", "")) == {*ENTRY_POINTS, "completion", "help", "presets"}
    assert completed(script, "moola", "pretrain", "--ep") == ["--epochs"]
    assert completed(script, "moola", "doctor", "--ep") == []
    assert completed(script, "moola", "pretrain", "--optimizer") == ["--optimizer."]
    wanted = sorted(f"--{key}" for key in dotted_keys(PretrainKeys) if key.startswith("trainer."))
    assert sorted(set(completed(script, "moola", "pretrain", "--trainer.")) - {"--trainer."}) == wanted
    assert set(completed(script, "moola", "label", "--trainer.")) == {"--trainer.seed", "--trainer."}
    assert completed(script, "moola", "report", "--trainer.") == []
    assert completed(script, "moola", "pretrain", "--bars", "my_") == []  # left to bash, which knows files


@pytest.mark.parametrize("words", [(), ("--help",), ("pretrain", "--help"), ("completion",)])
def test_nothing_is_coloured_in_a_pipe_or_where_no_colour_is_wanted(words: tuple[str, ...]) -> None:
    assert "\x1b" not in moola(*words, NO_COLOR="1") + moola(*words)


def test_moola_alone_shows_the_map() -> None:
    shown = moola()
    assert all(f"\n  {name} " in shown for name in ENTRY_POINTS)
