"""Windows looked at, with events by a rule or planted by hand, and event detectors with random nets."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from small_models import small_encoder

from moola_mlflow.bars.reader import Bars, read_bars
from moola_mlflow.core import BarsConfig
from moola_mlflow.labels import EventLabels, RuleWindows, find_rule
from moola_mlflow.models.encoders.ensemble import Ensemble
from moola_mlflow.models.events.event_detector import EventDetector, EventPart
from moola_mlflow.models.events.nets import NETS, NetShape
from moola_mlflow.models.events.presence import PresenceReader
from moola_mlflow.models.events.score_calibration import ScoreCalibration
from moola_mlflow.models.task_heads import TaskHeads
from moola_mlflow.windows import make_windows

CLASSES = ("consolidation", "retracement", "reversal")
LENGTHS = (4, 9)
PATH_FEATURES = 56


def labels_of(events: list[list[tuple[int, int, int]]], num_steps: int = 105, num_classes: int = 2) -> EventLabels:
    """Return flat windows with the given events (class, first and last bar) in each."""
    rows = [(i, *event) for i, own in enumerate(events) for event in own]
    window, label, start, end = np.array(rows, np.int64).reshape(-1, 4).T
    ohlc = np.arange(len(events) * num_steps * 4, dtype=np.float64).reshape(len(events), num_steps, 4)
    ids = np.array([f"w{i}" for i in range(len(events))])
    return EventLabels(ids, ohlc, CLASSES[:num_classes], window, label, start, end)


@cache
def sample(num_bars: int = 30_000, seed: int = 41) -> Bars:
    return read_bars(BarsConfig(sample_bars=num_bars, sample_seed=seed))


@cache
def looked_at(num: int = 60, seed: int = 41) -> EventLabels:
    """Return windows of the sample that share no bar, as the rule surge-1 labels them: half of them hold no event."""
    windows, rule = make_windows(sample(seed=seed), 105, 110), find_rule("surge-1")
    windows = windows.select(np.arange(num))
    ohlc = windows.gather(np.arange(num))
    marked = rule.apply(RuleWindows(ohlc))
    kept = np.flatnonzero(marked.labelled)
    columns = (kept, marked.outcome[kept], marked.start[kept], marked.end[kept])
    ids = np.array([f"w{i}" for i in range(num)])
    return EventLabels(ids, ohlc, rule.classes, *columns, windows.start_ns, windows.end_ns, weak=True)


def encoder_of_rules(hidden: int = 4, seed: int = 0) -> Any:
    """Return a random encoder with random heads of rules."""
    encoder = small_encoder(hidden=hidden, seed=seed)
    torch.manual_seed(seed)
    names, size = tuple(f"rule-{i}" for i in range(6)), encoder.output_size
    encoder.task_heads = TaskHeads(names, torch.randn(6, 2, size), torch.randn(6, 3, 3 * size))
    return encoder


def random_event_detector(members: int = 0, num_classes: int = 3, seed: int = 0, **card: Any) -> EventDetector:
    """Return a detector of random nets on price-path features, and a presence reader for each encoder."""
    torch.manual_seed(seed)
    encoders = [encoder_of_rules(4 + i, i) for i in range(members)]
    encoder = None if not encoders else encoders[0] if members == 1 else Ensemble(encoders)
    parts, first = [], 0
    for one in encoders:
        net = PresenceReader(NetShape(one.output_size, num_classes, LENGTHS), 5)
        torch.nn.init.normal_(net.presence.weight)
        parts.append(EventPart(net.eval(), (first, first + one.output_size), 0.5 / members))
        first += one.output_size
    share = 0.5 if encoders else 1.0
    for make in NETS.values():
        net = make(NetShape(PATH_FEATURES, num_classes, LENGTHS), 8)
        parts.append(EventPart(net.eval(), (first, first + PATH_FEATURES), share / len(NETS)))
    return EventDetector(
        tuple(parts), encoder, "both" if encoders else "price_path", CLASSES[:num_classes], 1.3,
        ScoreCalibration(1.2, 0.4), 0.6, {"model_id": "by hand", **card},
    )  # fmt: skip
