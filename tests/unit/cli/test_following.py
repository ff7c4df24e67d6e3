"""Bars that come one by one: what is printed, what is skipped, and what ends it."""

from __future__ import annotations

import io
import json
import signal

import numpy as np
import pytest
from small_events import random_event_detector, sample

from moola_mlflow.bars import BadLine, LiveBar
from moola_mlflow.cli import following
from moola_mlflow.cli.following import Followed, event_line, follow_bars
from moola_mlflow.core import DetectKeys, Interrupts, make_config
from moola_mlflow.core.errors import UserError
from moola_mlflow.models import LiveEvent, LiveScan

EVENT = LiveEvent("ES", 1_704_205_800_000_000_000, 1_704_206_100_000_000_000, "reversal", 0.5, 10**18, 3, True)


class Silent:
    """A run that nobody looks at."""

    def metrics(self, figures, step: int = 0) -> None:  # type: ignore[no-untyped-def]
        self.logged = (figures, step)

    def beat(self) -> None:
        pass


def keys(**given: object) -> DetectKeys:
    return make_config(DetectKeys, {}, {"detect.follow": True, **given})


def rows(num: int) -> list[LiveBar | BadLine]:
    bars = sample()
    return [LiveBar("ES", int(bars.time_ns[i]), bars.ohlc[i], 1.0) for i in range(num)]


def test_an_event_is_a_line_to_read_or_an_object_with_the_columns_of_a_scan() -> None:
    assert event_line(EVENT, "table") == (
        "ES  2024-01-02T14:30:00Z to 2024-01-02T14:35:00Z  reversal  score 0.500  known at 2001-09-09T01:46:40Z"
    )
    assert json.loads(event_line(EVENT, "json")) == {
        "instrument": "ES", "start": "2024-01-02T14:30:00Z", "end": "2024-01-02T14:35:00Z", "label": "reversal",
        "score": 0.5, "known_at": "2001-09-09T01:46:40Z", "num_windows": 3, "final": True,
    }  # fmt: skip


def test_bad_late_and_repeated_bars_are_skipped_with_a_line_each_and_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, to, some = Followed(LiveScan(random_event_detector(), 0.0)), io.StringIO(), rows(400)
    following._take(found, [*some[:300], some[299], some[3], BadLine(7, "is not JSON"), *some[300:]], 0.0, "json", to)
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[-1] for line in said] == [
        "its time has been read already", "a later bar has been read", "Skipped line 7 is not JSON",
    ]  # fmt: skip
    assert (len(found.seen), found.num_skipped) == (400, 3)
    events = [json.loads(line) for line in to.getvalue().splitlines()]
    assert len(events) == found.num_events > 3
    assert found.metrics()["detect/hits"] == found.num_events


def test_one_bar_from_the_far_future_does_not_make_all_later_bars_late(capsys: pytest.CaptureFixture[str]) -> None:
    found, some = Followed(LiveScan(random_event_detector(), 0.0)), rows(400)
    wrong = LiveBar("ES", int(np.datetime64("2262-01-01", "ns").astype(np.int64)), np.array([1.0, 2.0, 0.5, 1.0]), 1.0)
    following._take(found, [*some[:300], wrong, *some[300:]], 0.0, "json", io.StringIO())
    assert (len(found.seen), found.num_skipped) == (400, 1)
    assert "its time is in the future" in capsys.readouterr().err


def test_after_twenty_skipped_lines_further_ones_are_only_counted(capsys: pytest.CaptureFixture[str]) -> None:
    found = Followed(LiveScan(random_event_detector(), 0.0))
    following._take(found, [BadLine(k, "is not JSON") for k in range(50)], 0.0, "json", io.StringIO())
    said = capsys.readouterr().err.splitlines()
    assert (len(said), found.num_skipped) == (20, 50)
    assert said[-1].endswith("(further ones are only counted)")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"detect.precision": 0.8}, "detect.precision=0.8 chooses the threshold from all events of the bars"),
        ({"detect.max_per_day": 3}, "detect.max_per_day=3 chooses the threshold"),
        ({"bars.path": "nowhere.csv"}, "bars='nowhere.csv' cannot be read"),
        ({"bars.instrument": "front", "bars.path": __file__}, "bars.instrument=front needs the volume"),
    ],
)
def test_what_cannot_be_followed_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        follow_bars(Silent(), keys(**given), random_event_detector(), "fp32", Interrupts(), io.StringIO())  # type: ignore[arg-type]


def test_ctrl_c_ends_it_and_what_was_found_is_kept(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "live.csv"
    lines = [f"{np.datetime64(b.time_ns, 'ns')}Z,{','.join(map(str, b.ohlc))}" for b in rows(300)]  # type: ignore[union-attr]
    path.write_text("time,open,high,low,close\n" + "\n".join(lines) + "\n2024-")
    interrupts = Interrupts()

    class Pressed(following.GrowingFile):
        def lines(self) -> list[str]:
            found = super().lines()
            if not found:
                interrupts._handle(signal.SIGINT, None)
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "GrowingFile", Pressed)
        given = {"bars.path": str(path), "detect.min_score": 0.0}
        found = follow_bars(Silent(), keys(**given), random_event_detector(), "fp32", interrupts, io.StringIO())  # type: ignore[arg-type]
    assert found.ended_by == "SIGINT asked it to stop"
    assert len(found.seen) == 300
    assert found.num_events > 3
    assert found.num_skipped == 1, "the last line has no end"


def test_a_line_that_does_not_go_with_those_before_ends_it_and_what_was_found_is_kept(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "live.csv"
    lines = [f"{np.datetime64(b.time_ns, 'ns')}Z,{','.join(map(str, b.ohlc))},ES" for b in rows(301)]  # type: ignore[union-attr]
    path.write_text("time,open,high,low,close,symbol\n" + "\n".join(lines[:300]) + "\n")

    class Grown(following.GrowingFile):
        def lines(self) -> list[str]:
            found = super().lines()
            if len(found) > 1:
                with path.open("a") as file:
                    file.write(lines[300][:-2] + "NQ\n")
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "GrowingFile", Grown)
        given = {"bars.path": str(path), "detect.min_score": 0.0}
        found = follow_bars(Silent(), keys(**given), random_event_detector(), "fp32", Interrupts(), io.StringIO())  # type: ignore[arg-type]
    assert (len(found.seen), found.num_events > 3) == (300, True)
    assert found.refusal is not None
    assert "holds the instruments ES and NQ" in str(found.refusal)
