"""Follow bars that come one by one, and print each event once it is final."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from moola_mlflow.bars import BadLine, GrowingFile, LineReader, LineStream, LiveBar, SeenBars
from moola_mlflow.core import DetectKeys, Interrupted, Interrupts, UserError
from moola_mlflow.models import EventDetector, LateBarError, LiveEvent, LiveScan, PatternDetector, check_thresholds
from moola_mlflow.tracking import Metrics, Run

STANDARD_INPUT = "-"
EVERY_S, BEAT_S = 60.0, 5.0
"""Seconds between two logs of metrics, and between two signs that the run is alive."""
PAUSE_S = 0.1
DAY_NS = 86_400_000_000_000
"""A bar further ahead of the clock has a wrong time. Every bar after it would count as late."""
MOST_SHOWN = 20
"""Skipped lines that are printed; further ones are counted."""


@dataclass
class Followed:
    """What came while bars were followed."""

    live: LiveScan
    seen: SeenBars = field(default_factory=SeenBars)
    num_events: int = 0
    num_skipped: int = 0
    slowest_bar_ms: float = 0.0
    seconds: float = 0.0
    """How long it took."""
    ended_by: str = ""
    """Why it ended, in words."""
    refusal: UserError | None = None
    """Why what comes next cannot be used: the caller raises it when it has logged what was found."""

    def summary(self) -> str:
        """Return in one line why it ended and what came."""
        return (
            f"Ended: {self.ended_by}. {len(self.seen):,} bars, {self.num_events:,} final events, {self.num_skipped:,} "
            f"lines skipped, slowest bar {self.slowest_bar_ms:.1f} ms"
        )

    def metrics(self) -> dict[str, float]:
        """Return the figures so far."""
        return {
            Metrics.DETECT_BARS: len(self.seen),
            Metrics.DETECT_HITS: self.num_events,
            Metrics.DETECT_WINDOWS: self.live.num_windows,
            Metrics.DETECT_LINES_SKIPPED: self.num_skipped,
            Metrics.DETECT_SLOWEST_BAR_MS: self.slowest_bar_ms,
        }


def follow_bars(
    active: Run,
    config: DetectKeys,
    detector: PatternDetector | EventDetector,
    precision: str,
    interrupts: Interrupts,
    to: TextIO,
) -> Followed:
    """Read lines until the stream ends, nothing comes for ``detect.idle_s`` seconds, or the process is asked to stop.

    Events are printed ``to`` a stream.
    A file that is shortened or replaced also ends it, with a refusal, and so do lines that do not go with those before.

    Raises: UserError for a detector or keys that cannot follow bars, and if the first lines are no bars.
    """
    options = config.detect
    check_thresholds(config.given(), detector)
    live = _live_scan(config, detector, precision)
    name = config.bars.path
    source = LineStream(sys.stdin.fileno()) if name == STANDARD_INPUT else GrowingFile(Path(name).expanduser())
    reader = LineReader(config.bars, "standard input" if name == STANDARD_INPUT else name)
    found = Followed(live)
    _warm_up(detector)
    print(f"Following {name}; Ctrl-C ends the run", flush=True)
    began = logged = beat = last_line = time.monotonic()
    try:
        with interrupts.deferred():  # raises at its end what interrupted it
            while not (found.ended_by or source.ended or (why := interrupts.reason())):
                started = time.perf_counter()
                try:
                    lines = source.lines()
                except UserError as e:
                    found.ended_by, found.refusal = "the file was shortened, replaced or written anew", e
                    break
                if lines:
                    last_line = time.monotonic()
                try:
                    rows = reader.read(lines)
                except UserError as e:
                    if not len(found.seen):
                        raise
                    found.ended_by, found.refusal = "a line does not go with those before it", e
                    break
                _take(found, rows, started, options.lines, to)
                now = time.monotonic()
                if now - logged >= EVERY_S:
                    logged = now
                    active.metrics(found.metrics(), step=len(found.seen))
                if now - beat >= BEAT_S:
                    beat = now
                    active.beat()
                if not lines and not source.ended:
                    if options.idle_s is not None and time.monotonic() - last_line >= options.idle_s:
                        found.ended_by = f"no line came for {options.idle_s:g} s"
                    time.sleep(0 if found.ended_by else PAUSE_S)
            found.ended_by = found.ended_by or ("the lines ended" if source.ended else f"{why} asked it to stop")
    except Interrupted:
        pass  # this is how a user ends it: what was found counts
    finally:
        source.close()
    found.seconds = time.monotonic() - began
    if source.unfinished:
        found.num_skipped += 1
        _say(f"Skipped the last line, which has no end yet: {source.unfinished[:80]}")
    return found


def _live_scan(config: DetectKeys, detector: PatternDetector | EventDetector, precision: str) -> LiveScan:
    options = config.detect
    if not isinstance(detector, EventDetector):
        raise UserError(
            "detect.follow needs an event detector, which knows when a hit is final; fit one with finetune on labels "
            "that hold windows without an event"
        )
    for key in ("precision", "max_per_day"):
        if (value := getattr(options, key)) is not None:
            raise UserError(
                f"detect.{key}={value:g} chooses the threshold from all events of the bars, and detect.follow does not "
                "know them yet; give detect.min_score, or nothing for the detector's own threshold"
            )
    bars = config.bars
    return LiveScan(detector, options.min_score, options.stride, bars.max_gap_minutes, precision, bars.minutes)


def _warm_up(detector: PatternDetector | EventDetector) -> None:
    """Read one window, so that the first bar is as fast as the others."""
    detector.predict(np.full((1, detector.length, 4), 100.0) + np.array([0.0, 1.0, -1.0, 0.5]))


def _take(found: Followed, rows: Sequence[LiveBar | BadLine], started: float, form: str, to: TextIO) -> None:
    """Add bars to the scan, print the events that they make final, and name the lines that are no use."""
    for row in rows:
        began = time.perf_counter()
        if isinstance(row, BadLine):
            _skip(found, f"line {row.number} {row.reason}")
            continue
        if row.time_ns > time.time_ns() + DAY_NS:
            _skip(found, f"the bar of {row.instrument} at {_utc(row.time_ns)}: its time is in the future")
            continue
        try:
            events = found.live.add(row.instrument, row.time_ns, row.ohlc)
        except LateBarError as e:
            _skip(found, f"the bar of {row.instrument} at {_utc(row.time_ns)}: {e}")
            continue
        found.seen.add(row)
        found.num_events += len(events)
        for event in events:
            try:
                print(event_line(event, form), file=to, flush=True)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), to.fileno())
                found.ended_by = "nobody reads the events any more"
        # A single bar is timed from its line on. Bars that come together are read together.
        spent = time.perf_counter() - (started if len(rows) == 1 else began)
        found.slowest_bar_ms = max(found.slowest_bar_ms, 1000 * spent)


def event_line(event: LiveEvent, form: str) -> str:
    """Return an event as a line to read, or as a JSON object with the columns of a scan's table."""
    if form == "json":
        times = {name: _utc(getattr(event, name)) for name in ("start", "end", "known_at")}
        return json.dumps({**event._asdict(), **times, "score": round(event.score, 6)})
    return (
        f"{event.instrument}  {_utc(event.start)} to {_utc(event.end)}  {event.label}  score {event.score:.3f}  "
        f"known at {_utc(event.known_at)}"
    )


def _skip(found: Followed, why: str) -> None:
    found.num_skipped += 1
    if found.num_skipped <= MOST_SHOWN:
        more = " (further ones are only counted)" if found.num_skipped == MOST_SHOWN else ""
        _say(f"Skipped {why}{more}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _utc(time_ns: int) -> str:
    return f"{np.datetime64(time_ns, 'ns').astype('datetime64[s]')}Z"
