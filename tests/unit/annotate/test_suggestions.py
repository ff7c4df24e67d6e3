"""What the detector found in a window is handed out as a copy."""

from __future__ import annotations

from moola_mlflow.annotate.suggestions import Suggestions


def test_a_window_that_was_not_read_has_no_suggestions_and_one_without_events_has_an_empty_list() -> None:
    made = Suggestions({3: [], 7: [{"label": "flag", "start": 1, "end": 4, "score": 0.5}]})
    assert (made.of(5), made.of(3)) == (None, [])
    found = made.of(7)
    assert found is not None
    found[0]["label"] = "other"
    assert made.of(7) == [{"label": "flag", "start": 1, "end": 4, "score": 0.5}]
