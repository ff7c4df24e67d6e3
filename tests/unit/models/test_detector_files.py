"""A detector on disk finds what it found before, and a broken folder says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_models import CLASSES, small_detector, windows

from moola_mlflow.core.errors import UserError
from moola_mlflow.models.encoders.ensemble import members_of
from moola_mlflow.models.files.detector import load_detector_folder, save_detector
from moola_mlflow.models.files.encoder import load_from_path
from moola_mlflow.models.heads import Inputs


@pytest.mark.parametrize("head", ["span", "pooled"])
@pytest.mark.parametrize(
    ("inputs", "members"), [("encoding", 1), ("price_path", 0), ("price_path", 1), ("both", 1), ("both", 3)]
)
def test_a_saved_detector_finds_the_same(tmp_path: Path, inputs: Inputs, members: int, head: str) -> None:
    detector = small_detector(inputs, members, head)
    save_detector(detector, tmp_path / "detector")
    loaded = load_detector_folder(tmp_path / "detector")
    before, after = detector.predict(windows()), loaded.predict(windows())
    np.testing.assert_array_equal(after.probability, before.probability)
    np.testing.assert_array_equal(after.start, before.start)
    assert (loaded.classes, loaded.temperature, loaded.inputs) == (CLASSES, 1.3, inputs)
    assert loaded.card["evidence"] == detector.card["evidence"]
    assert not loaded.head.training
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_a_loaded_detector_saves_to_the_same_files(tmp_path: Path) -> None:
    save_detector(small_detector("both", 2), tmp_path / "first")
    save_detector(load_detector_folder(tmp_path / "first"), tmp_path / "second")
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*") if path.is_file()]
    assert len(files) == 6
    assert all((tmp_path / "first" / f).read_bytes() == (tmp_path / "second" / f).read_bytes() for f in files)


def test_the_encoders_inside_load_on_their_own_with_their_cards(tmp_path: Path) -> None:
    detector = small_detector("both", 2)
    assert detector.encoder is not None
    save_detector(detector, tmp_path)
    for i, member in enumerate(members_of(detector.encoder)):
        assert load_from_path(tmp_path / "encoders" / str(i)).card["features"] == member.card["features"]


def test_a_detector_of_an_earlier_version_says_path_for_price_path(tmp_path: Path) -> None:
    save_detector(small_detector("price_path"), tmp_path)
    edit_card(inputs="path")(tmp_path)
    loaded = load_detector_folder(tmp_path)
    assert loaded.inputs == loaded.card["inputs"] == "price_path"
    assert len(loaded.predict(windows())) == len(windows())


def edit_card(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "detector.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def shrink(folder: Path) -> None:
    """Put the head of a detector with other inputs into the folder."""
    other = folder.parent / "other"
    save_detector(small_detector("price_path"), other)
    (folder / "weights.safetensors").write_bytes((other / "weights.safetensors").read_bytes())


def swap_encoder(folder: Path) -> None:
    """Put an encoder of another size into the folder."""
    other = folder.parent / "other"
    save_detector(small_detector("both", 2), other)
    for name in ("encoder.json", "weights.safetensors"):
        (folder / "encoders" / "0" / name).write_bytes((other / "encoders" / "1" / name).read_bytes())


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no card": (lambda f: (f / "detector.json").unlink(), "lacks detector.json"),
    "no weights": (lambda f: (f / "weights.safetensors").unlink(), "lacks weights.safetensors"),
    "no encoder": (lambda f: (f / "encoders" / "0").rename(f / "away"), "lacks encoders/0"),
    "no encoder card": (lambda f: (f / "encoders" / "0" / "encoder.json").unlink(), "lacks encoder.json"),
    "card no JSON": (lambda f: (f / "detector.json").write_text("{"), "not readable JSON"),
    "card a list": (lambda f: (f / "detector.json").write_text("[]"), "holds a list"),
    "weights damaged": (lambda f: (f / "weights.safetensors").write_bytes(b"junk"), "not a readable detector folder"),
    "other weights": (shrink, "size mismatch"),
    "other encoder": (swap_encoder, "the head reads 64 inputs a step, inputs='both' makes 66"),
    "unknown head": (
        edit_card(architecture={"head": "spam", "lengths": [5, 12], "num_inputs": 64, "num_encoders": 1}),
        "did you mean 'span'",
    ),
    "no architecture": (edit_card(architecture=None), "not a readable detector folder"),
    "one class more": (edit_card(classes=["a", "b", "c"]), "size mismatch"),
    "other window": (edit_card(window={}), "length"),
    "temperature": (edit_card(temperature=-1), "temperature=-1"),
    "features of no set": (edit_card(features={"set": "spam", "hybrid": {}, "names": []}), "spam"),
    "features without names": (edit_card(features={"set": "relativity10", "hybrid": {}}), "names"),
    "other features": (
        edit_card(features={"set": "relativity10", "hybrid": {}, "names": ["spam"]}),
        r"features.set=relativity10 is now .*the head reads",
    ),
    "inputs without features": (edit_card(inputs="both+features"), "inputs='both\\+features' needs a set of features"),
    "inputs": (edit_card(inputs="encoding"), "inputs='encoding' makes 8"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_refused_with_what_is_wrong(tmp_path: Path, case: str) -> None:
    breaks, message = BROKEN[case]
    folder = tmp_path / "detector"
    save_detector(small_detector("both"), folder)
    breaks(folder)
    with pytest.raises(UserError, match=message) as refused:
        load_detector_folder(folder)
    assert "\n" not in str(refused.value)
