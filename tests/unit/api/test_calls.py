"""How a verb calls its command: keys by keyword, and where results without tracking go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moola_mlflow.api import verbs
from moola_mlflow.api.calls import MARK, Call, dotted
from moola_mlflow.core import UserError

SMALL: dict[str, Any] = {"n": 20, "bars__sample_bars": 20_000}


def test_two_underscores_are_the_dot_of_a_key() -> None:
    assert dotted({"cv__num_folds": 3, "epochs": 2}) == {"cv.num_folds": 3, "epochs": 2}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"epcohs": 3}, r"unknown parameter 'epcohs' \(value '3'\); did you mean 'epochs'"),
        ({"encoder__hiden": 3}, "did you mean 'encoder.hidden'"),
        ({"epochs": "many"}, "trainer.epochs='many'.*allowed: int"),
        ({"register": "mine"}, "register='mine': nothing is registered with track=False"),
        ({"resume": "auto"}, "tracking.resume|no interrupted run|resume"),
    ],
)
def test_a_wrong_key_is_refused_in_the_words_of_the_command(workdir: Path, keys: dict[str, Any], said: str) -> None:
    if "resume" in keys:
        keys = {"resume": "0" * 32}
    with pytest.raises(UserError, match=said):
        verbs.pretrain("sample", "smoke", track=False, **keys)


def test_a_tracked_training_has_no_folder_of_its_own() -> None:
    with pytest.raises(UserError, match="out='here': a tracked pretrain keeps its files with its run"):
        verbs.pretrain("sample", "smoke", out="here")


def ask(folder: Path, overwrite: bool = False, command: str = "pretrain", **given: Any) -> Path:
    return Call(command, {}, folder, overwrite, track=False)._folder(given)


def test_results_never_replace_what_no_call_has_written(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds other files; give a new folder"):
            ask(mine, overwrite)
    assert (mine / "thesis.txt").read_text() == "years of work"
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="holds other files"):
        ask(file, True)


def test_results_of_an_earlier_call_are_replaced_if_the_caller_says_so(tmp_path: Path) -> None:
    folder = ask(tmp_path / "out")
    (folder / "encoder").mkdir()
    (folder / "encoder" / "weights").write_text("old")
    Call("pretrain", {}, folder, track=False)._note_results(folder)
    with pytest.raises(UserError, match="overwrite=True"):
        ask(folder)
    with pytest.raises(UserError, match="holds results of pretrain"):
        ask(folder, True, "finetune")
    with pytest.raises(UserError, match="holds 'encoder', which is read"):
        ask(folder, True, encoder=str(folder / "encoder"))
    ask(folder, True)
    assert [path.name for path in folder.iterdir()] == [MARK]


def test_what_somebody_has_put_beside_the_results_is_never_removed(workdir: Path) -> None:
    made = verbs.pretrain(
        "sample", "smoke", out="mine", track=False, bars__sample_bars=6000, epochs=1, encoder__hidden=8
    )
    before = sorted(path.name for path in Path("mine").iterdir())
    (Path("mine") / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"also holds 'thesis.txt', which no finished call has noted"):
        ask(Path("mine"), True)
    assert sorted(path.name for path in Path("mine").iterdir()) == sorted([*before, "thesis.txt"])
    (Path("mine") / "thesis.txt").unlink()
    ask(Path("mine"), True)
    assert not Path(made.encoder).exists()


def test_one_call_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="torchrun --nproc-per-node 2 -m moola_mlflow pretrain"):
        verbs.pretrain("sample", "smoke", track=False)
