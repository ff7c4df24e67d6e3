"""``moola presets``: the presets of the package, listed, printed and written."""

from pathlib import Path

import pytest
import yaml
from paths import ROOT

from moola_mlflow.cli.presets import presets_text
from moola_mlflow.core import UserError

NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))


def test_every_preset_is_listed_with_what_it_is_for() -> None:
    lines = presets_text([]).splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(len(line.split()) > 5 for line in lines)


def test_a_preset_is_printed_as_it_is() -> None:
    assert yaml.safe_load(presets_text(["rules"]))["objective"]["name"] == "rules"


def test_presets_are_written_to_a_new_folder_and_never_over_a_file(tmp_path: Path) -> None:
    assert presets_text(["--out", str(tmp_path / "mine")]).startswith(f"{len(NAMES)} presets")
    (tmp_path / "mine" / "rules.yaml").write_text("trainer: {epochs: 3}\n")
    with pytest.raises(UserError, match=r"holds finetune.yaml; give a new or empty folder"):
        presets_text(["--out", str(tmp_path / "mine")])
    assert (tmp_path / "mine" / "rules.yaml").read_text() == "trainer: {epochs: 3}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rulez"], r"neither a file nor a preset; did you mean 'rules'"),
        (["--out"], r"presets does not take '--out'"),
        (["rules", "path"], r"presets does not take 'rules path'"),
    ],
)
def test_other_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        presets_text(words)
