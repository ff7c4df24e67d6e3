"""What is shown of an address has no login in it, and a wrong name is answered with the nearest right one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moola_mlflow.core import errors
from moola_mlflow.core.errors import GateError, TrainingError, UserError, conceal_secrets, nearest_name, printable


@pytest.fixture(autouse=True)
def _nothing_concealed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = set(errors._concealed)
    yield
    errors._concealed.clear()
    errors._concealed.update(before)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:secret@host:5000/api does not answer", "http://host:5000/api does not answer"),
        ("postgresql://me:pa/ss@host/db?password=secret", "postgresql://host/db?password=***"),
        ("https://token@host/x", "https://host/x"),
        ("mlflow-artifacts://me:pw@host/0", "mlflow-artifacts://host/0"),
        ("at https://host/api?user=me&access_token=abc&page=2", "at https://host/api?user=***&access_token=***&page=2"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("mail me@host.com", "mail me@host.com"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_logins_leave_an_address_and_nothing_else_does(text: str, expected: str) -> None:
    assert printable(text) == expected


def test_a_password_is_hidden_where_it_stands_alone_as_written_and_decoded() -> None:
    conceal_secrets("postgresql://me:p%40ss;w@host/db")
    assert printable("authentication of p@ss;w failed (p%40ss;w)") == "authentication of *** failed (***)"


def test_the_stores_own_address_is_concealed_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:s3cr;3t@host/db")
    assert printable("half an address: s3cr;3t@host") == "half an address: ***@host"


def test_a_password_that_is_a_plain_word_is_not_struck_out_of_every_text() -> None:
    conceal_secrets("postgresql://me:moola@host/db")
    assert printable("moola: no run") == "moola: no run"


def test_a_port_is_no_password() -> None:
    conceal_secrets("http://host:5000/a-b@c")
    assert printable("5000/a-b is a path") == "5000/a-b is a path"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ecnoder.hidden", "; did you mean 'encoder.hidden'?"), ("zzz", "."), ("", ".")],
)
def test_the_nearest_name_is_offered_and_no_far_one(name: str, expected: str) -> None:
    assert nearest_name(name, iter(["encoder.hidden", "encoder.layers"])) == expected


def test_the_kinds_of_failure_are_told_apart() -> None:
    """Each has its own exit code, so none may be caught as another."""
    kinds = (UserError, TrainingError, GateError)
    assert all(not issubclass(one, other) for one in kinds for other in kinds if one is not other)


def test_a_message_shows_both_ends_of_a_cell_that_fills_a_file() -> None:
    said = str(UserError(f"bars.csv: holds 2 instruments (ES 11 bars, NQ{'A' * 70_000}Z 1 bars); choose one"))
    assert said.startswith("bars.csv: holds 2 instruments (ES 11 bars, NQAAA")
    assert "69,003 characters left out" in said
    assert said.endswith("AAAZ 1 bars); choose one")
    assert len(said) < 1_200


def test_a_message_of_many_words_is_bounded_too() -> None:
    assert len(str(UserError("many " * 100_000))) <= errors.MAX_SHOWN


def test_no_half_of_an_address_is_shown_with_its_password() -> None:
    said = UserError(f"postgresql://me:{'s3cr;3t' * 20}@host/{'d' * 2_000} does not answer")
    assert "s3cr" not in printable(str(said))
