"""Files named with `out`: those of a command are replaced, all others stay unless the user says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from moola_mlflow.cli import main
from moola_mlflow.core import UserError, check_outputs, is_true, keep_backup, note_outputs


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("made by hand")
    return tmp_path / "a.txt"


def test_a_file_that_no_command_wrote_is_replaced_only_if_the_user_says_so(file: Path) -> None:
    check_outputs([file.with_name("new.txt")], "report", False)
    with pytest.raises(UserError, match=r"a\.txt' exists, and no command .* overwrite=true; nothing was written"):
        check_outputs([file], "report", False)
    check_outputs([file], "report", True)


def test_a_file_of_a_command_is_replaced_by_the_same_kind_until_somebody_changes_it(file: Path) -> None:
    note_outputs([file], "report")
    check_outputs([Path("a.txt"), file.parent / "." / "a.txt"], "report", False)
    with pytest.raises(UserError, match="it holds report, not bars"):
        check_outputs([file], "bars", False)
    file.write_text("corrected by hand")
    with pytest.raises(UserError, match="it was changed since a command wrote it"):
        check_outputs([file], "report", False)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"kind": "report"}'])
def test_a_damaged_note_is_none(file: Path, content: str) -> None:
    note_outputs([file], "report")
    (note,) = Path(".moola/outputs").iterdir()
    note.write_text(content)
    with pytest.raises(UserError, match="exists, and"):
        check_outputs([file], "report", False)


def test_a_backup_is_made_once(file: Path) -> None:
    backup = keep_backup(file)
    assert backup is not None
    assert (backup.name, backup.read_text()) == ("a.txt.bak", "made by hand")
    file.write_text("later")
    assert keep_backup(file) is None
    assert backup.read_text() == "made by hand"
    assert keep_backup(file.with_name("absent")) is None


def test_a_truth_is_true_or_false() -> None:
    assert (is_true("overwrite", "TRUE"), is_true("overwrite", "false")) == (True, False)
    with pytest.raises(UserError, match="overwrite='yes'; allowed: true, false"):
        is_true("overwrite", "yes")


@pytest.mark.parametrize(
    ("command", "name"),
    [("label", "labels.parquet"), ("data", "bars.parquet"), ("rules", "rules.html"), ("rules", "rules.csv")],
)
def test_a_command_keeps_what_is_made_by_hand_and_replaces_its_own(
    workdir: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    sample = {"label": ["--n", "20", "--bars.sample_bars", "8000"], "data": ["--bars.sample_bars", "3000"]}
    words = [command, *sample.get(command, ["--bars.sample_bars", "3000", "--objective.num_rules", "2"])]
    path = workdir / "out" / name
    words += ["--out", str(path if path.suffix == ".parquet" else path.parent)]
    path.parent.mkdir()
    path.write_text("made by hand")
    assert main.run_cli(words) == 2
    assert f"'{path}' exists, and no command of this folder has written it" in capsys.readouterr().err
    assert path.read_text() == "made by hand"
    assert main.run_cli([*words, "--overwrite", "true"]) == 0
    assert path.read_bytes() != b"made by hand"
    assert main.run_cli(words) == 0  # its own
    backup = path.with_name(f"{name}.bak")
    assert backup.exists() == (command == "label")
    if command == "label":
        assert backup.read_text() == "made by hand"
