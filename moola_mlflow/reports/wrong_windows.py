"""A page of a fine-tuning with charts of the labelled windows that the detector got wrong out of fold.

Shape legend: N windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moola_mlflow.evaluation import DETECTOR, EventEvidence, Evidence
from moola_mlflow.labels import NONE, EventLabels
from moola_mlflow.models import HIT_BARS
from moola_mlflow.reports.document import Document, Heading, Mono, Para
from moola_mlflow.reports.plots.interactive import ShownSpan, WindowPicture, windows_chart
from moola_mlflow.reports.touchable import MOST_WINDOWS, Plot, touch_page
from moola_mlflow.reports.window_pictures import labelled_picture

PREDICTED_COLOR = "#77777f"
"""Shade of what the detector said; a labelled event has the colour of its class."""
HOW = (
    "The nets that read a window here did not learn from it. In colour: the label. In grey: what the detector said. It "
    "may be the label that is wrong: look at it again with ",
    Mono("moola annotate --annotate.review true"),
    ".",
)

SaidSpan = tuple[int, int, str]
"""First bar, last bar and name of an event that the detector reports."""


@dataclass(frozen=True)
class WrongWindow:
    """A labelled window that the detector got wrong: its row in the labels, what was wrong, and what was said."""

    window: int
    why: str
    said: tuple[SaidSpan, ...] = ()


def wrong_windows_page(evidence: Evidence | EventEvidence) -> str:
    """Return a page that needs no other file, with a chart of each wrong window.

    Windows come by how sure the detector was of what is wrong, the surest first. A chart has at most
    ``touchable.MOST_WINDOWS`` of them.
    """
    if isinstance(evidence, Evidence):
        labels, groups = EventLabels.of(evidence.labels), wrong_spans(evidence)
    else:
        labels, groups = evidence.labels, wrong_events(evidence)
    document, plots = Document(f"Wrong out of fold: {labels.path}"), []
    document.add(Para(HOW))
    for name, (lead, found) in groups.items():
        shown = found[:MOST_WINDOWS]
        title = f"{name} ({len(shown)} of {len(found)})" if len(shown) < len(found) else f"{name} ({len(found)})"
        document.add(Heading(title), Para(lead if found else "None."))
        if shown:
            plots.append(Plot(title, windows_chart([_picture(labels, one) for one in shown])))
    counts = [(f"{len(labels):,}", "windows looked at"), *((f"{len(f):,}", name) for name, (_, f) in groups.items())]
    return touch_page(document, plots, counts)


def wrong_spans(evidence: Evidence) -> dict[str, tuple[str, list[WrongWindow]]]:
    """Return the windows whose class or span is wrong in half of the repeats or more, by the title of their group.

    Each group has a sentence that says what it holds. The span that is shown is of the first repeat that is wrong.
    """
    found, labels = evidence.predictions[DETECTOR], evidence.labels
    guess_KN = found.probability.argmax(2)
    off_KN = np.abs(found.predicted.sum(2) - found.span.sum(1)) / 2
    other_KN = guess_KN != found.label
    wrong_KN = other_KN | (off_KN > HIT_BARS)
    rows = np.arange(len(labels))
    own_N = found.probability[:, rows, found.label].mean(0)
    out: dict[str, list[WrongWindow]] = {"Wrong class": [], "Wrong place": []}
    for i in np.argsort(own_N, kind="stable").tolist():
        num = int(wrong_KN[:, i].sum())
        if 2 * num < len(wrong_KN):
            continue
        k = int(np.flatnonzero(wrong_KN[:, i])[0])
        said = labels.classes[int(guess_KN[k, i])]
        why = (
            f"labelled {labels.classes[int(found.label[i])]} (probability {own_N[i]:.2f}), said {said}, centre "
            f"{off_KN[k, i]:g} bars off; wrong in {num} of {len(wrong_KN)} repeats"
        )
        start, end = found.predicted[k, i].tolist()
        of_class = 2 * int(other_KN[:, i].sum()) >= len(wrong_KN)
        out["Wrong class" if of_class else "Wrong place"].append(WrongWindow(i, why, ((start, end, said),)))
    leads = (
        "The detector named another class. The label that it believed least comes first.",
        f"The class is right, and the centre of the span is more than {HIT_BARS} bars off.",
    )
    return dict(zip(out, zip(leads, out.values(), strict=True), strict=True))


def wrong_events(evidence: EventEvidence) -> dict[str, tuple[str, list[WrongWindow]]]:
    """Return misses and false hits of the detector's first fit, by the title of their group.

    Each group has a sentence that says what it holds.
    """
    fit, labels = evidence.fit, evidence.labels
    held, num_steps = fit.held, labels.ohlc.shape[1]
    score, above = fit.out_of_fold()

    def events_in(window: int) -> tuple[SaidSpan, ...]:
        mine = np.flatnonzero(above & (held.window == window))
        places = ((int(held.found.start[k]) % num_steps, int(held.found.end[k]) % num_steps) for k in mine)
        return tuple((*place, labels.classes[int(held.found.label[k])]) for place, k in zip(places, mine, strict=True))

    best = np.full(len(held.true), np.nan)
    matched = held.matched >= 0
    best[held.matched[matched]] = score[matched]
    hit = np.zeros(len(held.true), bool)
    hit[held.matched[above & matched]] = True
    misses, false_hits = [], []
    for k in sorted(np.flatnonzero(~hit).tolist(), key=lambda k: np.nan_to_num(best[k], nan=-1.0)):
        window = int(held.true.start[k]) // num_steps
        scored = "not found at any score" if np.isnan(best[k]) else f"score {best[k]:.2f}, below the threshold"
        misses.append(
            WrongWindow(window, f"missed {labels.classes[int(held.true.label[k])]}, {scored}", events_in(window))
        )
    for k in sorted(np.flatnonzero(above & ~matched & held.judged).tolist(), key=lambda k: -score[k]):
        window, name = int(held.window[k]), labels.classes[int(held.found.label[k])]
        false_hits.append(WrongWindow(window, f"false {name}, score {score[k]:.2f}", events_in(window)))
    return {
        "Misses": ("Labelled events that the detector does not report, the lowest score first.", misses),
        "False hits": ("Reported events that no label confirms, the highest score first.", false_hits),
    }


def _picture(labels: EventLabels, wrong: WrongWindow) -> WindowPicture:
    i = wrong.window
    names = [labels.classes[k] for k in labels.label[labels.window == i].tolist()]
    said = [ShownSpan(start, end, f"said {name}", PREDICTED_COLOR) for start, end, name in wrong.said]
    return labelled_picture(labels, i, f"{labels.window_id[i]} ({', '.join(names) or NONE}): {wrong.why}", said)
