"""The exceptions whose message is for the user, and what makes a message safe and helpful."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from urllib.parse import unquote

from moola_mlflow.core.console import visible

HTTP = r"(?:https?|mlflow-artifacts):"
LOGIN = re.compile(
    rf"(?i)({HTTP}//)[^/?#\s]{{0,900}}@|((?<![\w+.-])(?!{HTTP})[a-z][\w+.-]*://)[^/\s:@]{{0,300}}"
    r"(?::[^\s@]{0,300}(?:@[^\s@/]{0,300}){0,9})?@"
)
"""User and password in an address. The password of a database may contain a slash. Lengths are bounded: a text of
many addresses would take time by its square otherwise."""
PARAMETER = re.compile(r"(?i)([?&](?:user(?:name)?|\w*pass(?:word|wd)?|pwd|\w*token|\w*secret)=)[^&\s'\"]+")
"""User, password or token as a parameter of an address."""
PASSWORD = re.compile(r"[\w+.-]+://[^/\s:@]*:(?!\d{1,5}/)(.*)@")
"""The password of a whole address, with any characters. It does not begin like a port."""
MAX_SHOWN = 20_000
"""Most characters of a text that is shown. Patterns are tried on it, and an error may quote a whole file."""
MAX_WORD = 1_000
"""Most characters without a space that an error shows: a cell of a misread file may be as long as the file."""
LONG_WORD = re.compile(rf"\S{{{MAX_WORD + 1},}}")
WORDS = re.compile(r"[\w%-]*")
_concealed: set[str] = set()


def _cut_word(found: re.Match[str]) -> str:
    """Return a long word with its middle left out. Half of an address might show a login, so it stays whole."""
    return found[0] if "://" in found[0] else _cut(found[0], MAX_WORD)


def _cut(text: str, most: int) -> str:
    """Return a text with its middle left out, so that about ``most`` characters are left."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} ... {len(text) - 2 * half:,} characters left out ... {text[-half:]}"


class UserError(ValueError):
    """Bad input or configuration: one message (what, value, allowed, cure), exit code 2, no traceback.

    Whatever a file holds, its message stays readable: a word of more than ``MAX_WORD`` characters is cut in the middle.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_cut(LONG_WORD.sub(_cut_word, message), MAX_SHOWN - 100))


class TrainingError(RuntimeError):
    """A run that started well and failed while running (NaN loss, a leak): exit code 1, no traceback."""


class GateError(RuntimeError):
    """The evidence of a model does not meet a gate: exit code 3, no traceback."""


def nearest_name(name: str, valid: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the closest valid name, or a full stop.

    >>> nearest_name("ecnoder.hidden", ["encoder.hidden", "encoder.layers"])
    "; did you mean 'encoder.hidden'?"
    """
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else "."


def conceal_secrets(address: str) -> None:
    """Make ``printable`` hide the password of an address also without the address around it.

    A password that is a plain word is not hidden in this way: hiding every ``moola`` of a text would reveal it.
    """
    found = PASSWORD.match(address)
    if found and not WORDS.fullmatch(found[1]):
        _concealed.update((found[1], unquote(found[1])))


def printable(text: str) -> str:
    """Return a text without the users and passwords of the addresses in it, and without control characters.

    A text of more than ``MAX_SHOWN`` characters is cut in the middle.

    >>> printable("http://me:secret@host:5000/api does not answer")
    'http://host:5000/api does not answer'
    >>> printable("postgresql://me:pa/ss@host/db?password=secret")
    'postgresql://host/db?password=***'
    """
    conceal_secrets(os.environ.get("MLFLOW_TRACKING_URI", ""))
    text = _cut(text, MAX_SHOWN)
    for secret in sorted(_concealed, key=len, reverse=True):
        text = text.replace(secret, "***")
    return visible(PARAMETER.sub(r"\1***", LOGIN.sub(r"\1\2", text)))
