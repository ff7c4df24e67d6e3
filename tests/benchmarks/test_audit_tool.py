"""The audit fails on a finding that nobody has explained, and explains nothing that is gone."""

from __future__ import annotations

from paths import ROOT

from tools.audit import EXPLAINED, unexplained


def finding(filename: str, test_id: str) -> dict[str, object]:
    return {"filename": filename, "line_number": 3, "test_id": test_id, "issue_severity": "HIGH", "issue_text": "bad"}


def test_a_finding_is_wrong_unless_its_file_and_test_are_explained() -> None:
    (name, test), *_ = EXPLAINED
    assert unexplained([finding(name, test), finding(f"./{name}", test)]) == []
    assert unexplained([finding(name, "B999"), finding("moola_mlflow/other.py", test)]) == [
        f"{name}:3: B999 HIGH: bad",
        f"moola_mlflow/other.py:3: {test} HIGH: bad",
    ]


def test_every_explained_file_exists_and_every_reason_is_a_sentence_part() -> None:
    assert all((ROOT / name).is_file() for name, _ in EXPLAINED)
    assert all(len(reason.split()) > 4 for reason in EXPLAINED.values())
