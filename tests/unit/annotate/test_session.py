"""A session: which classes it offers, and that a file has one session at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from event_files import some_events
from small_sessions import keys, opened, said, sample

from moola_mlflow.annotate.session import AnnotateSession
from moola_mlflow.core import AnnotateKeys, UserError
from moola_mlflow.labels import write_labels


def test_classes_are_those_asked_for_else_those_before_else_the_default(tmp_path: Path) -> None:
    with opened(tmp_path) as session:
        assert session.desk.classes == ("consolidation", "retracement")
    other = tmp_path / "other"
    with opened(other, classes="wedge, flag") as session:
        session.desk.decide(said(session.desk.window(), ("flag", 3, 9)))
    with opened(other) as session:
        assert session.desk.classes == ("wedge", "flag")
    with pytest.raises(UserError, match="names 'Flag', and the labels file has 'flag'"), opened(other, classes="Flag"):
        pass


def test_a_second_session_of_a_file_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(UserError, match="another moola annotate"), opened(tmp_path):
        pass


def test_a_session_that_cannot_be_opened_holds_nothing(tmp_path: Path) -> None:
    write_labels(some_events(), tmp_path / "mine.parquet")
    with pytest.raises(UserError, match="write both the same"):
        AnnotateSession.open(keys(tmp_path, classes="FALL,rise"), sample())
    with opened(tmp_path):
        pass


@pytest.mark.parametrize(
    ("key", "value"),
    [("annotator", "<b>"), ("annotator", " "), ("zone", "Mars/Olympus"), ("zone", "../../etc/passwd"),
     ("classes", "flag,None"), ("classes", "flag,Flag"), ("classes", "a,b,c,d,e,f,g,h,i,j")],
)  # fmt: skip
def test_impossible_keys_are_refused(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=key):
        AnnotateKeys.model_validate({"annotate": {key: value}})
