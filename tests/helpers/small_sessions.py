"""Sessions of labelling on a few sample bars, opened in a folder or asked over real HTTP."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness import Store

from moola_mlflow.annotate.session import AnnotateSession
from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.core import AnnotateKeys, BarsConfig

NUM_BARS = 12_000


@cache
def sample(num_bars: int = NUM_BARS) -> Bars:
    return read_bars(BarsConfig(sample_bars=num_bars))


def keys(folder: Path, **annotate: Any) -> AnnotateKeys:
    """Return the keys of a session whose labels lie in a folder."""
    sections: dict[str, Any] = {"labels": {"path": str(folder / "mine.parquet")}, "annotate": annotate}
    return AnnotateKeys.model_validate(sections)


@contextmanager
def opened(folder: Path, bars: Bars | None = None, **annotate: Any) -> Iterator[AnnotateSession]:
    """An open session on sample bars."""
    with AnnotateSession.open(keys(folder, **annotate), bars or sample()) as session:
        yield session


def said(window: Mapping[str, Any], *events: tuple[str, int, int], **more: Any) -> dict[str, Any]:
    """Return a decision about a window: its events as (class, first bar, last bar)."""
    spans = [{"label": label, "start": start, "end": end} for label, start, end in events]
    return {"ticket": window["ticket"], "action": "label", "events": spans, "seconds": 1.5, **more}


@dataclass
class Answer:
    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **more: Any) -> None:
        return None


@dataclass
class Client:
    """Asks a running page as a script does, with the token in a header."""

    link: str

    @property
    def base(self) -> str:
        return self.link.partition("/?")[0]

    @property
    def token(self) -> str:
        return self.link.partition("token=")[2]

    def ask(
        self, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, raw: bytes | None = None,
        token: bool = True,
    ) -> Answer:  # fmt: skip
        """GET, or POST if there is a body."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        known = {"Authorization": f"Bearer {self.token}"} if token else {}
        request = urllib.request.Request(f"{self.base}{path}", data, {**known, **(headers or {})})
        try:
            with urllib.request.build_opener(_Stay).open(request, timeout=60) as answer:
                return Answer(answer.status, _read(answer.read()), dict(answer.headers.items()))
        except urllib.error.HTTPError as e:
            return Answer(e.code, _read(e.read()), dict(e.headers.items()))

    def window(self) -> dict[str, Any]:
        answer = self.ask("/api/window")
        assert answer.status == 200, answer
        return dict(answer.body)

    def decide(self, window: Mapping[str, Any], *events: tuple[str, int, int], **more: Any) -> Answer:
        return self.ask("/api/decision", said(window, *events, **more))


def _read(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


@dataclass
class Served:
    """A running `moola annotate` and a client of its page."""

    process: subprocess.Popen[str]
    client: Client
    lines: list[str]

    def end(self) -> str:
        """Wait for its end and return all that it has printed."""
        out, err = self.process.communicate(timeout=120)
        return "".join(self.lines) + (out or "") + (err or "")


@contextmanager
def serving(store: Store, launcher: bool = False, **keys: str) -> Iterator[Served]:
    """`moola annotate` in a process of its own, on a free port. It is killed at the end if it still runs."""
    given = {"bars.sample_bars": str(NUM_BARS), "port": "0", "labels": "mine.parquet"}
    given |= {key.replace("__", "."): value for key, value in keys.items()}
    process = store.start("annotate", given, launcher)
    try:
        lines, link = [], None
        assert process.stdout is not None
        while link is None:
            line = process.stdout.readline()
            assert line, f"it ended: {''.join(lines)}{process.communicate()}"
            lines.append(line)
            link = re.search(r"http://\S+/\?token=\S+", line)
        yield Served(process, Client(link[0]), lines)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for(condition: Any, limit_s: float = 120.0) -> None:
    """Wait until something is so."""
    until = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)
