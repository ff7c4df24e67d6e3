"""Go through labels that are there: the least believable first, and the hits of a detector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from moola_mlflow.core import UserError

if TYPE_CHECKING:
    from moola_mlflow.annotate.session import AnnotateSession

HIT = "hit"


def review_windows(session: AnnotateSession) -> None:
    """Fill the queue of a session with the windows to review, and note what is to be said about each.

    Labels come first, by the self-confidence of out-of-fold predictions. Hits of ``annotate.list`` follow.

    Raises: UserError if there is nothing to review, or if the labels are too few to fit a detector on.
    """
    desk, hits = session.desk, list(session.desk.queue.listed)
    labels = session.labels()
    order: list[int] = []
    if len(labels):
        task, _ = session.make_task(review=True)
        print(f"Reading {len(labels):,} labelled windows out of fold ...", flush=True)
        assert labels.instrument is not None
        assert labels.start_ns is not None
        rows = session.candidates.find(labels.instrument.tolist(), np.asarray(labels.start_ns)).tolist()
        for review in session.refits.learner.ask(task).reviews:
            row = rows[review.pop("window")]
            if row >= 0:
                desk.review[row] = review
                order.append(row)
        if missing := rows.count(-1):
            print(f"Note: {missing:,} labelled windows are not in these bars, and are left out", flush=True)
    for row in hits:
        if row not in desk.review:
            desk.review[row] = hit_review(desk.suggestions.of(row) or [])
            order.append(row)
    if not order:
        raise UserError("annotate.review=true needs labels in the file, or annotate.list with a detections.parquet")
    desk.queue.listed = order


def hit_review(predicted: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is said about a window in which a detector has found something."""
    scores = [f"{event['score']:.2f}" for event in predicted if event.get("score") is not None]
    text = f"The detector found {len(predicted)} here" + (f" (score {', '.join(scores)})." if scores else ".")
    return {"kind": HIT, "given": [], "predicted": predicted, "text": text}
