"""Describe a fine-tuning: console table, note and warnings, and the card and tags of the registered detector."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from moola_mlflow.bars import utc
from moola_mlflow.core import PACKAGES, FinetuneKeys, markdown_code, markdown_table, markdown_text
from moola_mlflow.evaluation import (
    DETECTOR,
    FEW_GROUPS,
    PATH_FEATURES,
    Evidence,
    FinetuneSetting,
    FoldOutcome,
    Gate,
    NestedFold,
    copies_input,
    gate_reasons,
)
from moola_mlflow.features import FeatureChoice
from moola_mlflow.labels import EventLabels, LabelledSet, bar_minutes
from moola_mlflow.models import HIGHEST, LOWEST, Encoder, members_of
from moola_mlflow.reports.next_commands import promote_command, unregistered_step
from moola_mlflow.tracking import Artifacts, Metrics, Tags, VersionTags

WEAK_LABELS_TEXT = (
    "The labels are WEAK: a rule made them from prices. The scores say how well the detector imitates the rule, "
    "nothing more."
)

ALL_BASELINES = "run again with `-P cv.baselines=all`, which also compares with networks without pre-training"
TEMPERATURE_HARMS = ", so temperature made it worse"


def fold_line(fold: NestedFold, found: Mapping[str, float]) -> str:
    """Return the console line of a finished fold."""
    return (
        f"Fold {fold.index + 1}/{fold.num_folds}: F1={found['f1_macro']:.3f}, "
        f"Joint@3={found['joint_success_at_3']:.3f} (repeat {fold.repeat + 1}, seed {fold.seed})"
    )


def fold_run(fold: NestedFold, outcome: FoldOutcome, found: Mapping[str, float]) -> dict[str, Any]:
    """Return the name, tags, parameters, duration, curves and final scores of a fold's child run."""
    names = {"train_loss": Metrics.TRAIN_LOSS, "held_nll": Metrics.VAL_NLL, "held_class_nll": Metrics.VAL_CLASS_NLL,
             "held_f1_macro": Metrics.VAL_F1_MACRO, "held_joint_at_3": Metrics.VAL_JOINT_AT_3}  # fmt: skip
    tags = {
        Tags.STAGE: "fold",
        Tags.FOLD: fold.index + 1,
        Tags.REPEAT: fold.repeat + 1,
        Tags.SEED: fold.seed,
    }
    final = {f"{Metrics.TEST}{name}": value for name, value in found.items()}
    final |= {Metrics.BEST_EPOCH: outcome.best_epoch, Metrics.TEMPERATURE: outcome.temperature}
    final[Metrics.SECONDS] = outcome.seconds
    final |= {Metrics.SPLIT_TRAIN: len(fold.fit), Metrics.SPLIT_VAL: len(fold.held), Metrics.SPLIT_TEST: len(fold.test)}
    final[Metrics.SPLIT_PURGED] = fold.num_purged
    return {
        "name": f"seed {fold.seed} repeat {fold.repeat + 1} fold {fold.index + 1}",
        "tags": tags,
        "params": {
            "fold": fold.index + 1, "repeat": fold.repeat + 1, "seed": fold.seed, "folds": fold.num_folds,
            "draw": fold.fit_seed,
        },
        "seconds": outcome.seconds,
        "series": [{names[key]: value for key, value in row.items() if key in names} for row in outcome.history],
        "final": final,
    }  # fmt: skip


def finetune_console_lines(evidence: Evidence, gates: Sequence[Gate]) -> list[str]:
    """Return the summary of the cross-validation: every method on the same folds, then the gates and the headline."""
    wide = max(len(evidence.title(name)) for name in evidence.table)
    lines = [
        f"Out of fold, {len(evidence.labels)} windows, {_folds(evidence)}. Mean [95 % interval over "
        f"{evidence.num_groups} groups of windows]:",
        f"  {'':<{wide}}  F1 macro                Joint@3                 detector minus method, Joint@3",
    ]
    for name, row in evidence.table.items():
        gain = evidence.differences.get(name)
        beyond = gain["joint_success_at_3"].text("+") if gain else ""
        f1, joint = row["f1_macro"].text(), row["joint_success_at_3"].text()
        lines.append(f"  {evidence.title(name):<{wide}}  {f1:<22}  {joint:<22}  {beyond}".rstrip())
    ece = evidence.detector["ece"].mean
    lines.append(
        f"  ECE {evidence.ece_before:.3f} before, {ece:.3f} after temperature {evidence.temperature():.2f}"
        f"{_made_worse(evidence)}; a perfectly calibrated detector averages {evidence.ece_if_calibrated:.3f} on so "
        "many windows"
    )
    lines += [f"  {'met   ' if gate.passed else 'MISSED'}  {gate.text()}" for gate in gates]
    return [*lines, evidence.headline()]


def finetune_note(
    setting: FinetuneSetting, evidence: Evidence, gates: Sequence[Gate], uri: str, warnings: Sequence[str]
) -> str:
    """Return the Markdown note of a finished run: the result, its meaning, the data, and the next command."""
    labels, config = evidence.labels, setting.config
    d = evidence.detector
    rows = []
    for name, row in evidence.table.items():
        gain = evidence.differences.get(name)
        scores = [row[key].text() for key in ("f1_macro", "joint_success_at_3")]
        rows.append((evidence.title(name), *scores, gain["joint_success_at_3"].text("+") if gain else ""))
    table = markdown_table(("method", "F1 macro", "Joint@3", "detector minus method, Joint@3"), rows)
    missed = [gate.text() for gate in gates if not gate.passed]
    passed = "All gates are met." if not missed else "Gates missed: " + markdown_text("; ".join(missed)) + "."
    passed += "".join(f" Met: {markdown_text(text)}." for text in gate_reasons(gates))
    warned = "".join(f"\n\nWarning: {markdown_text(text)}" for text in warnings)
    return (
        f"**{evidence.headline()}**\n\n"
        f"F1 {d['f1_macro'].text()}, Joint@3 {d['joint_success_at_3'].text()}, ECE {d['ece'].mean:.3f} out of "
        f"fold ({evidence.ece_before:.3f} before temperature{_made_worse(evidence)}). {passed}\n\n"
        f"{table}\n\n"
        f"{len(labels)} windows ({markdown_text(_counts(labels))}), {_folds(evidence)}, purged. Brackets are "
        f"95 % intervals over {evidence.num_groups} groups of overlapping windows."
        f"{' ' + WEAK_LABELS_TEXT if labels.weak else ''}{warned}\n\n"
        f"`{Artifacts.WRONG_WINDOWS_PAGE}` has a chart of each window that is wrong out of fold.\n\n"
        f"Detector: {_described(setting)}. Labels {markdown_code(labels.path)}, "
        f"encoder {markdown_code(config.finetune.encoder or 'none')}.\n\n"
        f"{next_step(evidence, gates, uri, config)}\n"
    )


def _made_worse(evidence: Evidence) -> str:
    return TEMPERATURE_HARMS if evidence.detector["ece"].mean > evidence.ece_before else ""


def next_step(evidence: Evidence, gates: Sequence[Gate], uri: str, config: FinetuneKeys) -> str:
    """Return what to do next: promote if every gate is met, otherwise what helps against the missed ones."""
    missed = [gate.name for gate in gates if not gate.passed]
    if not missed and uri.startswith("models:/"):
        return f"Next: {markdown_code(promote_command(uri, config.model_dump(mode='json')))}"
    if not missed:
        return unregistered_step(uri)
    cures = {
        "identity": "use an encoder whose objective does not show it the answer (configs/rules.yaml)",
        "ece": f"label more windows (a perfectly calibrated detector averages {evidence.ece_if_calibrated:.3f} here)",
    }
    gain = "pre-train an encoder (configs/rules.yaml) or use none (`-P finetune.inputs=price_path`)"
    if evidence.left_out:
        gain = ALL_BASELINES
    if evidence.same_inputs or evidence.left_out:  # otherwise the detector uses no encoder already
        cures |= {gate.name: gain for gate in gates if gate.name.startswith("delta_")}
    cures |= {
        gate.name: "label more of that class, or set finetune.class_balanced=true"
        for gate in gates
        if gate.name.startswith("recall/")
    }
    steps = list(
        dict.fromkeys(cures.get(name, "label more windows, or compare other inputs and heads") for name in missed)
    )
    return f"Next, before it can be promoted: {'; '.join(steps)}"


def _described(setting: FinetuneSetting) -> str:
    kinds = {
        "price_path": "path features, no encoder",
        "frozen": "frozen encoder",
        "unfrozen": "unfrozen encoder",
        "scratch": "encoder trained from scratch",
    }
    head = f"head `{setting.config.finetune.head}`"
    readers = {"prior": "prior reader", "averaged": "average of the prior reader and two span heads"}
    reads = readers.get(setting.reader, head)
    return f"{kinds[setting.kind]}, {reads}, inputs `{setting.inputs}`"


def detector_card(
    setting: FinetuneSetting,
    evidence: Evidence,
    encoders: Sequence[tuple[str, Encoder]],
    overlap: float | None,
    run_id: str,
) -> dict[str, Any]:
    """Return everything that a user of the detector needs, without access to the store.

    ``encoders`` are the encoders that were given, each with its URI. ``overlap`` is the share of labelled windows from
    the time that an encoder was trained on.
    """
    config = setting.config
    return {
        "model_id": f"moola-detector-{run_id}",
        "created": f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "labels": described_labels(evidence.labels, config),
        "encoders": described_encoders(encoders),
        "pretrain_overlap": overlap,
        "fitted": setting.kind,
        "reader": setting.reader,
        "finetune": config.finetune.model_dump(mode="json"),
        "cv": config.cv.model_dump(mode="json"),
        "epochs": evidence.epochs(),
        "seed": config.trainer.seed,
        "evidence": {**evidence.gate_figures(uses_identity_encoder(setting)), "delta_inputs": setting.baseline_inputs},
        "headline": evidence.headline(),
        "run_id": run_id,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }  # fmt: skip


def described_labels(labels: LabelledSet | EventLabels, config: FinetuneKeys) -> dict[str, Any]:
    """Return what a card says of the labels: where they come from, how many there are, and their time."""
    times = {}
    if labels.start_ns is not None and labels.end_ns is not None:
        times = {"labelled_from": utc(int(labels.start_ns.min())), "labelled_until": utc(int(labels.end_ns.max()))}
    return {
        "path": str(labels.path), "sha256": labels.sha256, "num": len(labels), "counts": labels.counts(),
        "weak": labels.weak, "rule": labels.rule, "bars_sha256": labels.bars_sha256,
        "bar_minutes": bar_minutes(labels), **times, **_sample(labels, config),
    }  # fmt: skip


def described_encoders(encoders: Sequence[tuple[str, Encoder]]) -> list[dict[str, Any]]:
    """Return what a card says of each encoder that was given, with its URI."""
    return [
        {"uri": uri, "objective": encoder.card.get("objective", {}).get("name"), **_origin(encoder)}
        for uri, encoder in encoders
    ]


def _sample(labels: LabelledSet | EventLabels, config: FinetuneKeys) -> dict[str, int]:
    """Return which sample the labels come from. Another seed or length makes another series."""
    if str(labels.path) != "sample":
        return {}
    return {"sample_seed": config.labels.sample_seed, "sample_bars": config.bars.sample_bars}


def _origin(encoder: Encoder) -> dict[str, Any]:
    return {key: encoder.card.get(key) for key in ("model_id", "trained_from", "trained_until", "run_id")}


def uses_identity_encoder(setting: FinetuneSetting) -> bool | None:
    """Return whether an encoder of the detector was trained to copy its input; None if unknown."""
    if setting.encoder is None or setting.kind == "price_path":
        return False
    copies = [copies_input(member.card) for member in members_of(setting.encoder)]
    return True if True in copies else None if None in copies else False


def detector_version_tags(setting: FinetuneSetting, evidence: Evidence, preset: str, gates: str) -> dict[str, str]:
    """Return the tags of a registered detector version."""
    encoder = {"price_path": None, "scratch": setting.architecture}.get(setting.kind, setting.encoder)
    return {
        VersionTags.PRESET: preset,
        **inputs_version_tags(evidence.labels, encoder, setting.features),
        VersionTags.F1_MACRO: f"{evidence.detector['f1_macro'].mean:.4f}",
        VersionTags.JOINT_AT_3: f"{evidence.detector['joint_success_at_3'].mean:.4f}",
        VersionTags.WEAK_LABELS: str(evidence.labels.weak).lower(),
        VersionTags.DELTA_INPUTS: setting.baseline_inputs,
        VersionTags.BASELINES: setting.config.cv.baselines,
        VersionTags.GATES: gates,
    }


def inputs_version_tags(
    labels: LabelledSet | EventLabels, encoder: Encoder | None, features: FeatureChoice | None
) -> dict[str, str]:
    """Return the tags of a version that say what it was trained on and what it reads."""
    cards = [member.card for member in members_of(encoder)] if encoder is not None else []
    sets = [card["features"]["set"] for card in cards]
    if features is not None:
        sets.append(features.set)
    return {
        VersionTags.DATA_SHA256: labels.sha256,
        VersionTags.TRAINED_FROM: min((c["trained_from"] for c in cards if "trained_from" in c), default="unknown"),
        VersionTags.TRAINED_UNTIL: max((c["trained_until"] for c in cards if "trained_until" in c), default="unknown"),
        VersionTags.FEATURES: ",".join(dict.fromkeys(sets)) or "price_path",
        VersionTags.WINDOW: str(labels.ohlc.shape[1]),
    }


def list_doubts(setting: FinetuneSetting, evidence: Evidence) -> list[str]:
    """Return warnings that the reader of the scores needs."""
    out = []
    if setting.kind == "price_path" and setting.encoder is not None:
        reads = f"finetune.inputs={setting.inputs}"
        out.append(f"{reads} reads no encoder, so the given encoder is not part of this detector.")
    if setting.config.finetune.tuned_on == evidence.labels.sha256:
        out.append(
            "A sweep chose this configuration on the same labels, so the scores are too good. Use new labels for an "
            "honest score."
        )
    if evidence.left_out:
        out.append(left_out_doubt(evidence.left_out))
    over_path = evidence.differences.get(PATH_FEATURES)
    if setting.reader == "prior" and over_path is not None and not over_path["joint_success_at_3"].lo > 0:
        out.append(
            "The prior reader shows no sure gain in Joint@3 over path features alone, so these labels may not resemble "
            "the random rules. Try finetune.reader=averaged."
        )
    if evidence.num_groups < FEW_GROUPS:
        out.append(
            f"Only {evidence.num_groups} groups of windows do not overlap, so the intervals are rough, even widened by "
            "Student's t. Label windows that are further apart."
        )
    warm = [outcome.temperature for outcome in evidence.outcomes[DETECTOR]]
    stuck = sum(min(value / LOWEST, HIGHEST / value) < 1.001 for value in warm)
    if stuck:
        out.append(
            f"The temperature of {stuck} of {len(warm)} folds is at an end of its search range ({LOWEST:g} to "
            f"{HIGHEST:g}), so their probabilities are not calibrated. Label more windows, or raise cv.inner_share."
        )
    return out


def left_out_doubt(names: Sequence[str]) -> str:
    """Return a warning that ``cv.baselines=quick`` left out some baselines."""
    return (
        f"cv.baselines=quick left out {', '.join(names)}, so the gate on the gain is missed. Set cv.baselines=all "
        "before you promote."
    )


def collapse_warning(evidence: Evidence, floor: float) -> str | None:
    """Return a warning that names the classes below the recall ``floor``, or None."""
    low = {name: i.mean for name, i in evidence.recall().items() if not i.mean >= floor}
    if not low:
        return None
    shown = ", ".join(f"{name} {value:.2f}" for name, value in low.items())
    return (
        f"Class collapse: recall {shown}, below {floor:g}. Label more windows of the class, or set "
        "finetune.class_balanced=true or finetune.gamma=2."
    )


def _folds(evidence: Evidence) -> str:
    seeds = sorted({fold.seed for fold in evidence.folds})
    repeats = len({(fold.seed, fold.repeat) for fold in evidence.folds}) // len(seeds)
    counts = {"fold": evidence.folds[0].num_folds, "repeat": repeats, "seed": len(seeds)}
    return " x ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())


def _counts(labels: LabelledSet) -> str:
    return ", ".join(f"{count} {name}" for name, count in labels.counts().items())
