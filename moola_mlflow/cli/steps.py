"""Steps that several commands share: read labels and encoders, log them as inputs, and check features."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moola_mlflow.bars import Bars, length_text
from moola_mlflow.cli.bar_steps import load_bars, log_bars
from moola_mlflow.core import FinetuneKeys, TrainingKeys, UserError
from moola_mlflow.evaluation import UnlabelledWindows, draw_unlabelled
from moola_mlflow.features import (
    FeatureChoice,
    Hybrid,
    check_quality,
    compute_features,
    feature_names,
    flip_rate,
    quality_metrics,
    quality_report,
    quality_table,
)
from moola_mlflow.labels import EventLabels, LabelledSet, bar_minutes
from moola_mlflow.models import Encoder, parts_of
from moola_mlflow.tracking import (
    Artifacts,
    Metrics,
    Run,
    Tags,
    find_annotate_run,
    log_model_inputs,
    read_input_events,
    read_input_labels,
    resolve_origin,
)
from moola_mlflow.training import PrepareObserver, hybrid
from moola_mlflow.windows import BatchSource, Split, Windows, feature_statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASS_NAME = re.compile(r"(?!\.\.?(?:/|$))[\w .:-]+(/(?!\.\.?(?:/|$))[\w .:-]+)*")
"""What MLflow accepts as a part of a metric's name. It would read `.` and `..` as parts of a path."""


class LoggedPreparation(PrepareObserver):
    """Logs each step of a preparation to a run."""

    def __init__(self, run: Run, config: TrainingKeys) -> None:
        self._run, self._config = run, config

    def bars_read(self, bars: Bars) -> None:
        log_bars(self._run, bars, self._config.bars, "training")

    def windows_split(self, windows: Windows, split: Split) -> None:
        self._run.metrics({f"{Metrics.SPLIT}{part}": len(getattr(split, part)) for part in ("train", "val", "test")})
        self._run.metrics({Metrics.SPLIT_DROPPED: split.dropped})

    def flip_rate(self, source: BatchSource) -> float:
        return float(check_features(self._run, source, hurry=True)["swing_flip_rate"])


def check_features(
    run: Run, source: BatchSource, reference: dict[str, Any] | None = None, hurry: bool = False
) -> dict[str, Any]:
    """Log the feature quality report of all windows, then refuse features that nothing can be learned from.

    ``reference`` is the report of an encoder's training windows, to measure drift against it. With ``hurry``, the run
    draws the picture later if the features pass.

    Raises: UserError after the report has been logged.
    """
    seen = feature_statistics(source, np.arange(len(source.windows)))
    report = seen.report(source.flip_rate(), reference)
    _log_quality(run, report, seen.features)
    if report["warnings"]:
        run.tags({Tags.WARNINGS: " ".join(report["warnings"])})
    for warning in report["warnings"]:
        print(f"Warning: {warning}", flush=True)
    try:
        check_quality(report)
    except UserError:
        run.draw_waiting()
        raise
    if not hurry:
        run.draw_waiting()
    return report


def check_label_features(
    run: Run, labels: LabelledSet, config: FinetuneKeys, encoders: Sequence[tuple[str, Encoder]]
) -> list[str]:
    """Log the feature quality report of the labelled windows, as an encoder reads them, and return its warnings.

    If several encoders read different features, all are checked. The report, with its drift, is that of the first.

    Raises: UserError after the report has been logged.
    """
    own = FeatureChoice(config.features.set, hybrid(config.features)).described()
    specs = [encoder.card["features"] for _, encoder in encoders] or [own]
    if "features" in parts_of(config.finetune.inputs):
        specs.append(own)
    warmup, reports = config.windows.warmup, []
    for i, spec in enumerate(spec for k, spec in enumerate(specs) if spec not in specs[:k]):
        variant = Hybrid(**spec["hybrid"])
        features = compute_features(labels.ohlc, spec["set"], variant)
        flips = flip_rate(labels.ohlc, warmup, variant)
        known = training_quality(encoders) if i == 0 else None
        reports.append(quality_report(features, feature_names(spec["set"]), warmup, flips, known))
        if i == 0:
            _log_quality(run, reports[0], features)
            run.draw_waiting()
    for report in reports:
        try:
            check_quality(report)
        except UserError as e:
            raise UserError(f"labels '{labels.path}': {e}") from None
    return list(reports[0]["warnings"])


def _log_quality(run: Run, report: dict[str, Any], features: np.ndarray) -> None:
    run.metrics(quality_metrics(report))
    run.json(report, Artifacts.QUALITY)
    run.table(quality_table(report), Artifacts.QUALITY_TABLE)

    def picture() -> Figure:
        from moola_mlflow.reports import quality_figure  # matplotlib takes half a second to import

        return quality_figure(report, features)

    run.figure_later(picture, Artifacts.QUALITY_FIGURE)


def load_labels(run: Run, config: FinetuneKeys) -> LabelledSet:
    """Read the labelled windows of a run and log them as its input."""
    labels = read_input_labels(config)
    _log_labels(run, labels)
    run.metrics({Metrics.LABELS_USED: len(labels)})
    return labels


def labels_with_events(config: FinetuneKeys) -> EventLabels | None:
    """Read the labels of an event detector; None if a span detector is to be fitted.

    An event detector is asked for (by its name, or by unlabelled windows), or the labels hold what no span detector
    learns. It reads frozen encodings. So
    ``auto`` never stands for one where the encoder is trained too.
    """
    head = config.finetune.head
    if head != "event" and (head != "auto" or not config.finetune.freeze):
        return None
    asked = head == "event" or config.finetune.unlabelled == "bars"
    if not asked and config.labels.path == "sample" and not config.labels.rejects:
        return None
    labels = read_input_events(config)
    return labels if asked or (labels.events_per_window() != 1).any() else None


def load_unlabelled(run: Run, config: FinetuneKeys, labels: EventLabels) -> UnlabelledWindows | None:
    """Draw the windows that nobody looked at from bars, and log these as an input; None if none are asked for."""
    if config.finetune.unlabelled == "none":
        return None
    found = draw_unlabelled(load_bars(run, config.bars, labels.ohlc.shape[1], "unlabelled"), labels, config)
    print(f"Unlabelled: {found.said()}", flush=True)
    return found


def log_event_labels(run: Run, labels: EventLabels) -> None:
    """Log the windows looked at, with the events in each, as the input of a run."""
    _log_labels(run, labels)
    run.metrics({Metrics.LABELS_USED: len(labels), Metrics.LABELS_EVENTS: labels.num_events})
    if made_by := find_annotate_run(run.client, labels.sha256):
        run.tags({Tags.ANNOTATE_RUN_ID: made_by})
        print(f"Labels of run {made_by} of annotate", flush=True)


def _log_labels(run: Run, labels: LabelledSet | EventLabels) -> None:
    for line in labels.joined:
        print(f"Joined: {line}", flush=True)
    for name in labels.classes:
        if name == "macro" or not CLASS_NAME.fullmatch(name):
            raise UserError(
                f"labels: '{name}' cannot be a class, for metrics are called after it; allowed: letters, digits, "
                "spaces and . _ - : /, and not 'macro'; rename it in the file"
            )
    run.labels(labels, "finetune")
    run.metrics({f"{Metrics.LABELS}{name}": count for name, count in labels.counts().items()})


def log_encoders(run: Run, encoders: Sequence[tuple[str, Encoder]]) -> None:
    """Log the versions that the encoders' names mean today, and the runs that made them. An alias may move tomorrow.

    They are tags, with commas between the members of an ensemble: ``moola.encoder`` (``models:/name/version`` for an
    alias), ``moola.encoder_run_id``, ``moola.encoder_model_id``. A model that MLflow knows is an input of the run.
    """
    if not encoders:
        return
    origins = [resolve_origin(name, encoder.card) for name, encoder in encoders]
    tags = {Tags.ENCODER: ",".join(origin.uri for origin in origins)}
    tags[Tags.ENCODER_RUN_ID] = ",".join(origin.run_id for origin in origins if origin.run_id)
    tags[Tags.ENCODER_MODEL_ID] = ",".join(origin.model_id for origin in origins if origin.model_id)
    run.tags({key: text for key, text in tags.items() if text})
    for origin, (name, _) in zip(origins, encoders, strict=True):
        print(f"Encoder: {origin.said(name)}", flush=True)
    log_model_inputs(run.id, [origin.model_id for origin in origins if origin.model_id])


def training_quality(encoders: Sequence[tuple[str, Encoder]]) -> dict[str, Any] | None:
    """Return the feature quality report of the first encoder's training windows, None if it is unknown."""
    return encoders[0][1].card.get("quality") if encoders else None


def _other_lengths(labels: LabelledSet | EventLabels, encoders: Sequence[tuple[str, Encoder]]) -> list[str]:
    """Return a warning for each encoder that was trained on bars of another length than the labels have."""
    minutes, said = bar_minutes(labels), []
    for name, encoder in encoders:
        learned = encoder.card.get("data", {}).get("bar_minutes", 1)
        if learned != minutes:
            said.append(
                f"encoder '{name}' was trained on bars of {length_text(learned)}, and the labelled windows have bars "
                f"of {length_text(minutes)}."
            )
    return said


def check_overlap(
    run: Run, labels: LabelledSet | EventLabels, encoders: Sequence[tuple[str, Encoder]]
) -> tuple[float | None, list[str]]:
    """Log the share of labelled windows in the time that an encoder was trained on, and return it with warnings.

    Sample bars share no bar with another series, although their times may be the same.
    """
    if labels.start_ns is None or labels.end_ns is None:
        return None, [
            "the labels carry no times: overlap between folds was looked for in equal prices, which misses overlaps "
            "under 10 bars, no embargo is kept, and overlap with the encoder's training bars is unknown; add "
            "start_time and end_time."
        ]
    inside = np.zeros(len(labels), bool)
    unknown = [name for name, encoder in encoders if "trained_from" not in encoder.card]
    if unknown:
        return None, [
            f"encoder '{unknown[0]}' does not say when its training bars were (a bare checkpoint): whether it has seen "
            "the labelled windows is unknown; give the encoder folder or a registered version."
        ]
    for _, encoder in encoders:
        card, data = encoder.card, encoder.card.get("data", {})
        synthetic = "sample" in (labels.path, data.get("path"))
        if synthetic and labels.bars_sha256 and labels.bars_sha256 != data.get("sha256"):
            continue  # no bar in common, whatever the times say
        ends = (card["trained_from"], card["trained_until"])
        first, last = (int(np.datetime64(text.rstrip("Z"), "ns").astype(np.int64)) for text in ends)
        inside |= (labels.start_ns <= last) & (labels.end_ns >= first)
    share = float(inside.mean())
    run.metrics({Metrics.PRETRAIN_OVERLAP: share})
    warned = _other_lengths(labels, encoders)
    if not share:
        return share, warned
    return share, [
        *warned,
        f"{share:.0%} of the labelled windows lie within the time that the encoder was trained on: it saw no label, "
        "but it may know these bars; for a figure on unseen bars pre-train on bars that end before the labels begin.",
    ]
