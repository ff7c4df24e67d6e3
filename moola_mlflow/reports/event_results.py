"""Describe the fine-tuning of an event detector: console table, note and warnings, card and tags of the version."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from moola_mlflow.core import PACKAGES, FinetuneKeys, markdown_code, markdown_table, markdown_text
from moola_mlflow.evaluation import (
    EVENT_TITLES,
    FEW_GROUPS,
    QUERY_WINDOWS,
    RANDOM_WINDOWS,
    EventEvidence,
    EventSetting,
    Gate,
    missed_gates,
)
from moola_mlflow.labels import EventLabels, overlap_groups
from moola_mlflow.models import Encoder, HeldOutFit
from moola_mlflow.reports.finetune_results import (
    ALL_BASELINES,
    WEAK_LABELS_TEXT,
    described_encoders,
    described_labels,
    inputs_version_tags,
    left_out_doubt,
)
from moola_mlflow.reports.next_commands import promote_command, unregistered_step
from moola_mlflow.tracking import Artifacts, VersionTags

HEADER = ("method", "mAP", "precision", "recall", "detector minus method, mAP")
FOLD_NETS = (
    "For these scores, each window was read by the nets of one fold. A scan averages the nets of all folds and many "
    "windows, so expect it to find events better than these scores say."
)


def event_fit_line(name: str, repeat: int, fit: HeldOutFit, seconds: float) -> str:
    """Return the console line of a finished fit."""
    right, found = int((fit.held.matched >= 0).sum()), len(fit.held.found)
    return (
        f"{EVENT_TITLES[name]}, repeat {repeat + 1}: {right} of {len(fit.held.true)} events found out of fold among "
        f"{found} peaks, threshold {fit.detector.threshold:.2f} ({seconds:.0f} s)"
    )


def event_console_lines(evidence: EventEvidence, gates: Sequence[Gate]) -> list[str]:
    """Return the summary: every method on the same folds, then the gates and the headline."""
    rows = _rows(evidence)
    widths = [max(len(row[i]) for row in [HEADER, *rows]) for i in range(len(HEADER))]
    lines = [
        f"Out of fold, {_windows(evidence)}. Mean [95 % interval over {evidence.num_groups} groups of windows]:",
        *(
            "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [HEADER, *rows]
        ),
        _calibration_line(evidence),
        *(f"  {'met   ' if gate.passed else 'MISSED'}  {gate.text()}" for gate in gates),
    ]
    return [*lines, evidence.headline()]


def _calibration_line(evidence: EventEvidence) -> str:
    error = evidence.detector["event_ece"].mean
    if math.isnan(error):
        return "  ECE of the scores is not known: no held-out event scores 0.1 or more"
    return (
        f"  ECE of the scores {error:.3f}; a perfectly calibrated detector averages {evidence.ece_if_calibrated:.3f} "
        "with as many events"
    )


def event_note(
    setting: EventSetting, evidence: EventEvidence, gates: Sequence[Gate], uri: str, warnings: Sequence[str]
) -> str:
    """Return the Markdown note of a finished run: the result, its meaning, the data, and the next command."""
    labels, missed = evidence.labels, missed_gates(gates)
    passed = "All gates are met." if not missed else f"Gates missed: {markdown_text('; '.join(missed))}."
    warned = "".join(f"\n\nWarning: {markdown_text(text)}" for text in warnings)
    table = markdown_table(HEADER, _rows(evidence))
    return (
        f"**{markdown_text(evidence.headline())}** {passed}\n\n{table}\n\n"
        f"{markdown_text(_windows(evidence))}. Brackets are 95 % intervals over {evidence.num_groups} groups of "
        f"overlapping windows. {FOLD_NETS}{' ' + WEAK_LABELS_TEXT if labels.weak else ''}{warned}\n\n"
        f"`{Artifacts.WRONG_WINDOWS_PAGE}` has a chart of each window that is wrong out of fold.\n\n"
        f"Detector: events, {markdown_text(described(setting))}.{_unlabelled(setting)} Labels "
        f"{markdown_code(labels.path)}, encoder {markdown_code(setting.config.finetune.encoder or 'none')}.\n\n"
        f"{event_next_step(gates, uri, setting.config)}\n"
    )


def event_next_step(gates: Sequence[Gate], uri: str, config: FinetuneKeys) -> str:
    """Return what to do next: promote if every gate is met, otherwise what helps against the missed ones."""
    missed = [gate.name for gate in gates if not gate.passed]
    if not missed and uri.startswith("models:/"):
        return f"Next: {markdown_code(promote_command(uri, config.model_dump(mode='json')))}"
    if not missed:
        return unregistered_step(uri)
    gain = "give an encoder of configs/rules.yaml, or use path features alone (`-P finetune.inputs=price_path`)"
    if config.cv.baselines == "quick":
        gain = ALL_BASELINES
    steps = dict.fromkeys(gain if name.startswith("delta_") else "look at more windows" for name in missed)
    return f"Next, before it can be promoted: {'; '.join(steps)}"


def event_card(
    setting: EventSetting,
    evidence: EventEvidence,
    encoders: Sequence[tuple[str, Encoder]],
    overlap: float | None,
    run_id: str,
) -> dict[str, Any]:
    """Return everything that a user of the detector needs, without access to the store.

    ``encoders`` are the given encoders, each with its URI. ``overlap`` is the share of labelled windows that lie in the
    period that an encoder was trained on.
    """
    config = setting.config
    return {
        "model_id": f"moola-detector-{run_id}",
        "created": f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "labels": {**described_labels(evidence.labels, config), "events": evidence.labels.num_events},
        "encoders": described_encoders(encoders),
        "pretrain_overlap": overlap,
        "reader": setting.reader,
        "unlabelled": None if setting.unlabelled is None else setting.unlabelled.described(),
        "finetune": config.finetune.model_dump(mode="json"),
        "cv": config.cv.model_dump(mode="json", include={"folds", "repeats", "seeds", "baselines"}),
        "seed": evidence.seeds[0][0],
        "evidence": evidence.gate_figures(),
        "headline": evidence.headline(),
        "run_id": run_id,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def event_version_tags(setting: EventSetting, evidence: EventEvidence, preset: str, gates: str) -> dict[str, str]:
    """Return the tags of a registered event detector."""
    encoder = setting.encoder if setting.reads_encoding else None
    return {
        VersionTags.PRESET: preset,
        **inputs_version_tags(evidence.labels, encoder, setting.features),
        VersionTags.MAP: f"{evidence.detector['map'].mean:.4f}",
        VersionTags.WEAK_LABELS: str(evidence.labels.weak).lower(),
        VersionTags.BASELINES: setting.config.cv.baselines,
        VersionTags.GATES: gates,
    }


def event_doubts(setting: EventSetting, evidence: EventEvidence, floor: float) -> list[str]:
    """Return warnings for the reader of the scores. ``floor`` is the lowest recall that a class may have."""
    out, counts = [], evidence.labels.counts()
    if setting.encoder is not None and not setting.reads_encoding:
        out.append(f"finetune.inputs={setting.inputs} reads no encoder, so the given encoder is not used.")
    positives = setting.unlabelled is not None and counts["none"] == 0
    if positives:
        out.append(
            "No window is labelled none, so no figure here says how often the detector finds an event where there is "
            "none: precision and mAP are too high. To measure it, label windows drawn at random."
        )
    elif counts["none"] == 0:
        out.append(
            "No window is labelled none, so the detector has not learned to say that nothing is there. Keep the "
            "windows that you looked at and rejected as rows with label none."
        )
    if evidence.left_out:
        out.append(left_out_doubt(evidence.left_out))
    if evidence.num_groups < FEW_GROUPS:
        out.append(
            f"Only {evidence.num_groups} groups of windows do not overlap, so the intervals are rough, although "
            "Student's t widens them. Label windows that are further apart."
        )
    if alone := _classes_in_one_group(evidence.labels):
        out.append(
            f"All events of {', '.join(alone)} lie in one group of overlapping windows, so no net both learns the "
            "class and is scored on it. Label events of the class in windows further apart."
        )
    if evidence.scored_on == QUERY_WINDOWS:
        out.append(
            "A query chose every window, so the scores do not say how good a scan is. Look at windows drawn at random "
            "as well: then only they are scored."
        )
    if evidence.scored_on == RANDOM_WINDOWS:
        out.append("Only the windows drawn at random are scored. Windows that a query chose teach the detector only.")
    low = {name: one.mean for name, one in evidence.recall().items() if not one.mean >= floor}
    if low:
        shown = ", ".join(f"{name} {'not known' if math.isnan(v) else f'{v:.2f}'}" for name, v in low.items())
        out.append(f"Class collapse: recall {shown}, below {floor:g}. Label more events of the class.")
    return out


def _classes_in_one_group(labels: EventLabels) -> list[str]:
    """Return the classes whose events lie in a single group of windows that share bars."""
    group_E = overlap_groups(labels, across_instruments=True)[labels.window]
    return [name for k, name in enumerate(labels.classes) if len(np.unique(group_E[labels.label == k])) == 1]


def described(setting: EventSetting) -> str:
    """Return what the detector reads, in words."""
    if not setting.reads_encoding:
        return f"no encoder, inputs `{setting.inputs}`"
    reader = "prior reader with a presence model" if setting.reader == "prior" else "nets"
    return f"frozen encoder, {reader}, inputs `{setting.inputs}`"


def _unlabelled(setting: EventSetting) -> str:
    return "" if setting.unlabelled is None else f" {markdown_text(setting.unlabelled.said())}"


def _rows(evidence: EventEvidence) -> list[tuple[str, ...]]:
    rows = []
    for name, row in evidence.table.items():
        gain = evidence.differences.get(name)
        each = (row[metric] for metric in ("map", "precision", "recall"))
        scores = ("not known" if math.isnan(one.mean) else one.text() for one in each)
        rows.append((EVENT_TITLES[name], *scores, gain.text("+") if gain else ""))
    return rows


def _windows(evidence: EventEvidence) -> str:
    labels, repeats = evidence.labels, len(evidence.seeds)
    counts = ", ".join(f"{count} {name}" for name, count in labels.counts().items())
    scored = "" if evidence.scored_on != RANDOM_WINDOWS else f" ({evidence.scored_on} are scored)"
    times = f"{repeats} repeat{'s' if repeats > 1 else ''}"
    edge = ""
    if num := evidence.num_in_margin:
        edge = f"; {num} labelled event{'s are' if num > 1 else ' is'} not scored, in a margin of the window"
    return f"{len(labels)} windows looked at{scored}, events: {counts}{edge}; {times}"
