"""Build the report from the records of its runs alone: the same records give the same bytes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from moola_mlflow.core import UserError
from moola_mlflow.evaluation import COPIES_INPUT, Interval
from moola_mlflow.reports.document import Block, Code, Document, Heading, Items, Mono, Notice, Para, Strong, Text
from moola_mlflow.reports.finetune_results import WEAK_LABELS_TEXT
from moola_mlflow.reports.next_commands import finetune_command
from moola_mlflow.reports.paired import pair
from moola_mlflow.reports.run_report import conclusions, pretraining, tuning
from moola_mlflow.reports.run_report.conclusions import Conclusion
from moola_mlflow.reports.run_report.event_section import event_section
from moola_mlflow.reports.run_report.facts import EVENT, FINISHED, Pretrained, Tuned, kind_of
from moola_mlflow.reports.run_report.next_steps import next_steps
from moola_mlflow.tracking import RunRecord, Tags, encoder_sources, read_run, tunings_of

NAMED = 10
"""Runs of unknown origin that the report names one by one."""


@dataclass(frozen=True)
class Subject:
    """A pre-training and the fine-tunings of its encoder."""

    run: RunRecord
    tunings: Sequence[RunRecord]
    """Fine-tunings that read its encoder, the oldest first."""
    unknown: Sequence[tuple[RunRecord, str]]
    """Fine-tunings that may have read it, and why that is not known."""


def find_report_subject(run_id: str) -> Subject:
    """Return the pre-training to report on: the run itself, or the run that made the encoder of a fine-tuning.

    Raises: UserError for a run of another kind, or a fine-tuning that does not lead to one pre-training.
    """
    run = read_run(run_id, "run_id")
    if run.stage == "finetune":
        run = _source(run)
    if run.stage != "pretrain":
        raise UserError(
            f"run_id='{run_id}' ({run.name}) is {kind_of(run)}; give a pretrain or finetune run{_hint(run)}"
        )
    return Subject(run, *tunings_of(run))


def _source(run: RunRecord) -> RunRecord:
    sources = encoder_sources(run)
    if sources.unknown:
        raise UserError(
            f"run_id='{run.id}' ({run.name}) is a finetune run of unknown origin: {sources.unknown}; give the pretrain "
            "run itself"
        )
    if not sources.run_ids:
        raise UserError(
            f"run_id='{run.id}' ({run.name}) is a finetune run without an encoder, so it has no pretrain run to report "
            "on; read the run's note for its results"
        )
    if len(sources.run_ids) > 1:
        raise UserError(
            f"run_id='{run.id}' ({run.name}) reads {len(sources.run_ids)} encoders; give one of their pretrain runs: "
            f"{', '.join(sources.run_ids)}"
        )
    try:
        return read_run(sources.run_ids[0], "run_id")
    except UserError as e:
        raise UserError(f"run_id='{run.id}' ({run.name}): its pretrain run cannot be reported on: {e}") from None


def _hint(run: RunRecord) -> str:
    if run.stage == "fold" and Tags.PARENT in run.tags:
        return f" (it is a fold of {run.tags[Tags.PARENT]})"
    if run.stage in ("sweep", "trial"):
        return ". Retrain the sweep's best configuration at full length first; the sweep's note has the command"
    return ""


def build_report(subject: Subject) -> Document:
    """Return the report on a pre-training and its fine-tunings."""
    run, p = subject.run, Pretrained.of(subject.run)
    pairs = [(one, Tuned.of(one)) for one in subject.tunings]
    reported = [found for kind in tuning.SECTIONS if (found := tuning.shown_of(pairs, kind))]
    last = [t for _, t in sorted(reported, key=lambda one: (one[0].run.info.start_time, one[0].id))]
    version = run.version()
    uri = version or f"runs:/{run.id}/encoder"
    like = next((t.config for _, t in reversed(pairs) if t.done), p.config)
    document = Document(f"Report: {run.name}")
    events = [pair for pair in pairs if pair[1].kind == EVENT and pair[1].done][-1:]
    newest = sorted([*reported, *events], key=lambda one: (one[0].run.info.start_time, one[0].id))
    sentence = conclusions.main_conclusion([t for _, t in newest])
    document.add(Notice(Strong(sentence.text), _kind(sentence)), *_notices(run, p, subject, pairs))
    document.add(*pretraining.configuration(run, version), *pretraining.results(run, p))
    document.add(*pretraining.training_time(run, p), *pretraining.checkpoint(run, p, uri))
    document.add(*tuning.phase("frozen", pairs, command := finetune_command(uri, like)))
    document.add(*tuning.phase("unfrozen", pairs, finetune_command(uri, like, "unfrozen")))
    document.add(*event_section(pairs))
    document.add(*tuning.impact(pairs, command), *tuning.classes_and_pointers(pairs, command))
    document.add(Heading("Conclusions"), *_conclusions("Pre-training", conclusions.of_pretraining(p)))
    for tuned in last:
        document.add(*_conclusions(tuning.SECTIONS[tuned.kind][0], conclusions.of_tuning(tuned)))
    difference = _phases([one for one, t in reported if t.done])
    document.add(*_conclusions("Phase 2 against phase 1", conclusions.of_phases(difference)))
    detectors = {made: t.config for one, t in reported if _promotable(t) and (made := one.version())}
    steps = next_steps(run.id, uri, p, [t for _, t in pairs], detectors)
    document.add(Heading("Next steps"))
    for step in steps:
        document.add(Para(step.why), Code(step.command))
    if not steps:
        document.add(Para("These figures ask for no next command."))
    document.add(Para(f"Made from the records of these runs alone. The last of them ended at {_ended(subject)}."))
    return document


def _notices(run: RunRecord, p: Pretrained, subject: Subject, pairs: Sequence[tuning.Pair]) -> list[Notice]:
    out = []
    if run.status != FINISHED:
        out.append(Notice(f"The run is {run.status}: the report lacks what the run did not reach.", "bad"))
    if p.identity:
        out.append(Notice(f"Identity: {COPIES_INPUT}. The figures of such a run measure copying.", "bad"))
    if any(t.weak for _, t in pairs):
        out.append(Notice(WEAK_LABELS_TEXT, "warn"))
    if p.sample:
        out.append(Notice("The bars are the embedded sample. They are synthetic and come from no market.", "warn"))
    commits = {one.tags.get(Tags.COMMIT) for one in (run, *subject.tunings)} - {None}
    if len(commits) > 1:
        out.append(Notice(f"The runs come from {len(commits)} different commits.", "warn"))
    foreign = [t.name for _, t in pairs if t.kind == "price_path"]
    if foreign:
        text = f"Left out, because they read no encoder (finetune.inputs=price_path): {', '.join(foreign)}."
        out.append(Notice(text, "warn"))
    for one, why in subject.unknown[:NAMED]:
        text2: Text = ("It is not recorded whether ", Mono(one.id), f" ({one.name}) belongs here: {why}.")
        out.append(Notice(text2, "warn"))
    if len(subject.unknown) > NAMED:
        out.append(Notice(f"The same holds for {len(subject.unknown) - NAMED} more.", "warn"))
    return out


def _phases(runs: Sequence[RunRecord]) -> Interval | str | None:
    """Return phase 2 minus phase 1, or why it cannot be computed; None unless both phases have scores."""
    if len(runs) != 2:
        return None
    found = pair(runs[0], runs[1])
    return found if isinstance(found, str) else found.differences["joint_success_at_3"]


def _promotable(t: Tuned) -> bool:
    return bool(t.gates) and all(gate.passed for gate in t.gates)


def _kind(conclusion: Conclusion) -> str:
    return {True: "good", False: "bad", None: ""}[conclusion.good]


def _conclusions(title: str, found: Sequence[Conclusion]) -> list[Block]:
    items: list[Text] = [one.text if one.good is None else (Strong("", one.good), f" {one.text}") for one in found]
    return [Heading(title, 3), Items(items)] if items else []


def _ended(subject: Subject) -> str:
    ends = [one.run.info.end_time or one.run.info.start_time for one in (subject.run, *subject.tunings)]
    return f"{dt.datetime.fromtimestamp(max(ends) / 1000, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
