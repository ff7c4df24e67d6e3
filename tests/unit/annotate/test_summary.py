"""The figures and the note of a run say what was labelled."""

from __future__ import annotations

from pathlib import Path

from small_sessions import opened, said

from moola_mlflow.annotate.summary import annotate_metrics, annotate_note


def test_figures_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        assert annotate_metrics(session) == {"annotate/looked_at": 0.0, "annotate/kept": 0.0}
        assert "0 windows looked at by me" in annotate_note(session)


def test_figures_and_note_follow_the_decisions(tmp_path: Path) -> None:
    with opened(tmp_path, annotator="ann_b") as session:
        window = session.desk.window()
        for _ in range(4):
            window = session.desk.decide(said(window, ("retracement", 30, 40), seconds=30))
        session.desk.decide(said(window))
        session.desk.curve = [[5, 0.61]]
        session.desk.agreement = lambda: {"kappa": 0.7, "windows": 12, "spans": None}
        assert annotate_metrics(session) == {
            "annotate/looked_at": 5, "annotate/kept": 4, "annotate/keeper_rate": 0.8,
            "annotate/seconds_per_window": 24.3, "annotate/blind_map": 0.61, "annotate/kappa": 0.7,
        }  # fmt: skip
        note = annotate_note(session)
    assert "**5 windows looked at by ann_b**, 4 with an event (80%), 0 skipped, in 2 minutes. 4 retracement" in note
    assert "mAP of 0.61 on the blind ones" in note
    assert "kappa of the classes 0.70, events marked by both none" in note
    assert "moola finetune --labels" in note
