"""Lines that documents and help texts tell a reader to type, as the parser takes them."""

from __future__ import annotations

import itertools
import shlex


def spoken(line: str) -> tuple[str, list[str]]:
    """Return a command's name and its words, of a line written for `moola` or for `mlflow run .`."""
    words = shlex.split(line.partition("  #")[0])
    if words[:3] == ["mlflow", "run", "."]:
        given = list(itertools.pairwise(words[3:]))
        pairs = [f"--{value}" for flag, value in given if flag == "-P"]
        return next((value for flag, value in given if flag == "-e"), "main"), pairs
    program, name, *rest = words
    assert program == "moola", line
    return name, rest
