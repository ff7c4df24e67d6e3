"""Make weak labels: a fixed rule, not a person, labels windows of bars."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from moola_mlflow.bars import Bars, read_bars
from moola_mlflow.core import BarsConfig, FinetuneKeys, LabelsKeys, SampleBarsConfig, UserError, WeakLabelsConfig
from moola_mlflow.labels.event_labels import EventLabels, events_sha256
from moola_mlflow.labels.labelled_set import LENGTH, LabelledSet, content_sha256
from moola_mlflow.labels.rules import apply_rules, check_length, find_rule
from moola_mlflow.labels.surge_rule import CLASSES, RULE
from moola_mlflow.labels.window_names import instrument_of_rows, window_ids
from moola_mlflow.windows import Windows, make_windows

STRIDE = 21  # bars between candidate windows: a window has five phases, so a surge can lie anywhere in it
CHUNK = 2000


@dataclass(frozen=True)
class Patterns:
    """All labelled windows that a rule finds in bars, in order of time, and how many candidates it did not label.

    With rejects, windows without a label are there too: their label is -1.

    Shapes: label, start and end int64 [N], as in LabelledSet.
    """

    windows: Windows
    label: np.ndarray
    start: np.ndarray
    end: np.ndarray
    num_candidates: int
    num_no_label: int
    num_no_surge: int
    classes: tuple[str, ...] = CLASSES
    rule: str = RULE


def find_patterns(
    bars: Bars,
    seed: int,
    length: int = LENGTH,
    max_gap_minutes: int = 5,
    overlap: bool = False,
    rule: str = RULE,
    rejects: bool = False,
) -> Patterns:
    """Apply a rule to candidate windows, one every 21 bars, and return labelled windows that share no bar.

    Of several that overlap, one is drawn with the seed. The first one would always have its surge at its right edge.
    With ``overlap`` all stay. With ``rejects``, windows that the rule does not label are candidates like others.

    Raises: UserError if the rule is unknown, if no window fits into the bars, or if none gets a label.
    """
    labeller = find_rule(rule)
    check_length(labeller, length)
    candidates = make_windows(bars, length, STRIDE, max_gap_minutes)
    chunks = [np.arange(i, min(i + CHUNK, len(candidates))) for i in range(0, len(candidates), CHUNK)]
    # Numbered by their times: a rule with noise then gives a window the same label in any file.
    marks = [apply_rules([labeller], candidates.gather(chunk), candidates.start_ns[chunk])[0] for chunk in chunks]
    outcome, start, end, spans, labelled = (
        np.concatenate([getattr(part, name) for part in marks])
        for name in ("outcome", "start", "end", "found", "labelled")
    )
    found = np.flatnonzero(labelled)
    if len(found) == 0:
        raise UserError(
            f"no labels: {len(candidates):,} candidate windows in {len(bars):,} bars, and the rule {rule} gives none a "
            "class; give more bars"
        )
    if rejects:
        found = np.arange(len(candidates))
    if not overlap:
        found = found[_apart(candidates.starts[found], length, len(bars), np.random.default_rng(seed))]
    chosen = candidates.select(found)
    return Patterns(
        chosen, np.where(labelled, outcome, -1)[found], start[found], end[found], len(candidates),
        int((spans & ~labelled).sum()), int((~spans).sum()), labeller.classes, rule,
    )  # fmt: skip


def _apart(starts: np.ndarray, length: int, num_bars: int, rng: np.random.Generator) -> np.ndarray:
    """Return the sorted positions of windows that share no bar. They are taken at random, until no more fits."""
    taken = np.zeros(num_bars, bool)
    kept = []
    for i in rng.permutation(len(starts)).tolist():
        span = slice(starts[i], starts[i] + length)
        if not taken[span].any():
            taken[span] = True
            kept.append(i)
    return np.sort(np.array(kept, np.int64))


def choose_labels(patterns: Patterns, n: int, seed: int) -> LabelledSet:
    """Return n of the labelled windows, in order of time: one at random from each of n equal parts.

    If there are fewer than n, all are used and a warning of the set says how many.

    Raises: UserError if the chosen windows are all of one class.
    """
    pick, warnings = _pick(len(patterns.label), n, seed, "labelled windows")
    label = patterns.label[pick]
    present, label = np.unique(label, return_inverse=True)
    classes = tuple(patterns.classes[i] for i in present.tolist())
    if len(classes) < 2:
        raise UserError(
            f"all {len(label):,} labels are '{classes[0]}', of {len(patterns.label):,} found; a detector needs two "
            "classes: raise n or give more bars"
        )
    windows = patterns.windows.select(pick)
    bars = windows.bars
    instrument = instrument_of_rows(bars, windows.starts)
    window_id = np.array(window_ids(instrument, windows.start_ns))
    labels = LabelledSet(
        window_id, windows.gather(np.arange(len(pick))), label, classes, patterns.start[pick], patterns.end[pick],
        windows.start_ns, windows.end_ns, instrument, weak=True, rule=patterns.rule, bars_sha256=bars.sha256,
        warnings=warnings,
    )  # fmt: skip
    return replace(labels, sha256=content_sha256(labels))


def choose_events(patterns: Patterns, n: int, seed: int) -> EventLabels:
    """Return n of the windows that the rule looked at, rejects too: one at random from each of n equal parts.

    If there are fewer than n, all are used and a warning of the set says how many.
    """
    pick, warnings = _pick(len(patterns.label), n, seed, "windows that share no bar")
    windows, label = patterns.windows.select(pick), patterns.label[pick]
    events = np.flatnonzero(label >= 0)
    present, index = np.unique(label[events], return_inverse=True)
    instrument = instrument_of_rows(windows.bars, windows.starts)
    labels = EventLabels(
        np.array(window_ids(instrument, windows.start_ns)),
        windows.gather(np.arange(len(pick))),
        tuple(patterns.classes[i] for i in present.tolist()),
        events,
        index.astype(np.int64),
        patterns.start[pick][events],
        patterns.end[pick][events],
        windows.start_ns,
        windows.end_ns,
        instrument,
        np.full(len(pick), "random"),
        weak=True,
        rule=patterns.rule,
        bars_sha256=windows.bars.sha256,
        warnings=warnings,
    )
    return replace(labels, sha256=events_sha256(labels))


def _pick(num: int, n: int, seed: int, what: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the positions of n of ``num`` windows, and a warning if there are fewer. Shapes: int64 [n or num]."""
    if num < n:
        return np.arange(num), (f"{num:,} {what} found, fewer than the {n:,} asked for (n): all are used.",)
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(part) for part in np.array_split(np.arange(num), n)]), ()


def weak_labels(
    bars: Bars,
    n: int,
    seed: int,
    length: int = LENGTH,
    max_gap_minutes: int = 5,
    overlap: bool = False,
    rule: str = RULE,
) -> LabelledSet:
    """Return n windows of bars, labelled by a rule. Raises: UserError if they are not of two classes or more."""
    return choose_labels(find_patterns(bars, seed, length, max_gap_minutes, overlap, rule), n, seed)


def sample_bars(bars: SampleBarsConfig, labels: WeakLabelsConfig) -> BarsConfig:
    """Return the sample bars that labels are made from. Their seed is not that of pre-training.

    Raises: UserError if the two seeds are equal.
    """
    seed = labels.sample_seed
    if seed == bars.sample_seed:
        raise UserError(
            f"labels.sample_seed={seed} is also bars.sample_seed: the detector would be judged on the bars that "
            "its encoder was trained on; change one of the two"
        )
    like = {name: getattr(bars, name) for name in ("sample_bars", "resample", "minutes", "max_gap_minutes")}
    return BarsConfig(**like, sample_seed=seed)


def sample_labels(config: FinetuneKeys | LabelsKeys, n: int, seed: int) -> LabelledSet:
    """Return n labelled windows of sample bars that pre-training does not see."""
    return replace(choose_labels(_sample_patterns(config, seed, rejects=False), n, seed), path="sample")


def sample_events(config: FinetuneKeys | LabelsKeys, n: int, seed: int) -> EventLabels:
    """Return n windows of sample bars that pre-training does not see, those that the rule rejects too."""
    return replace(choose_events(_sample_patterns(config, seed, rejects=True), n, seed), path="sample")


def _sample_patterns(config: FinetuneKeys | LabelsKeys, seed: int, rejects: bool) -> Patterns:
    bars = read_bars(sample_bars(config.bars, config.labels), min_bars=config.windows.length)
    options, gap = config.labels, config.bars.max_gap_minutes
    return find_patterns(bars, seed, config.windows.length, gap, options.overlap, options.rule, rejects)
