"""What a run of `annotate` says of its session: figures by decision, and the note."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import Metrics, markdown_code, markdown_text

if TYPE_CHECKING:
    from moola_mlflow.annotate.session import AnnotateSession


def annotate_metrics(session: AnnotateSession) -> dict[str, float]:
    """Return the figures of a session as they are now; those that are not known are left out."""
    with session.desk.lock:
        tally, curve, agreement = session.desk.tally, session.desk.curve, session.desk.agreement()
        figures = {
            Metrics.ANNOTATE_LOOKED_AT: tally.looked_at,
            Metrics.ANNOTATE_KEPT: tally.kept,
            Metrics.ANNOTATE_KEEPER_RATE: tally.keeper_rate(),
            Metrics.ANNOTATE_KEEPER_RATE_ORDERED: tally.keeper_rate(session.config.annotate.order),
            Metrics.ANNOTATE_SECONDS: tally.seconds / tally.decided if tally.decided else None,
            Metrics.ANNOTATE_MAP: curve[-1][1] if curve else None,
            Metrics.ANNOTATE_KAPPA: agreement["kappa"] if agreement else None,
            Metrics.ANNOTATE_SPANS: agreement["spans"] if agreement else None,
        }
    return {name: float(value) for name, value in figures.items() if value is not None}


def annotate_note(session: AnnotateSession) -> str:
    """Return the note of a run: what was labelled, how it stands, and the next command."""
    tally, name = session.desk.tally, session.config.annotate.annotator
    counts = ", ".join(f"{count:,} {markdown_text(label)}" for label, count in tally.by_class.items() if count)
    rate = tally.keeper_rate()
    lines = [
        f"**{tally.looked_at:,} windows looked at by {markdown_text(name)}**, {tally.kept:,} with an event"
        + (f" ({rate:.0%})" if rate is not None else "")
        + f", {tally.skipped:,} skipped, in {tally.seconds / 60:.0f} minutes. {counts}",
    ]
    if session.desk.curve:
        at, value = session.desk.curve[-1]
        lines.append(
            f"A detector fitted on {at:,.0f} windows has an out-of-fold mAP of {value:.2f} on the blind ones: windows "
            "drawn at random and shown without suggestions, none of them weighted."
        )
    if agreement := session.desk.agreement():
        kappa, spans = agreement["kappa"], agreement["spans"]
        lines.append(
            f"Agreement on {agreement['windows']:,} windows that several people looked at: kappa of the classes "
            f"{'not defined' if kappa is None else f'{kappa:.2f}'}, "
            f"events marked by both {'none' if spans is None else f'{spans:.0%}'}."
        )
    if tally.kept:
        lines.append(f"Next: {markdown_code(f'moola finetune --labels {session.file.path}')}")
    return "\n\n".join(lines)
