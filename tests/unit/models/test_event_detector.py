"""The event detector reads windows and says none; on disk it finds what it found before."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_events import LENGTHS, random_event_detector
from small_models import small_detector, windows

from moola_mlflow.core.errors import UserError
from moola_mlflow.models.events.event_detector import EventPart
from moola_mlflow.models.events.nets import JointNet, NetShape
from moola_mlflow.models.files.detector import detector_kind, load_detector_folder, read_detector_card, save_detector
from moola_mlflow.models.files.event_detector import load_event_detector_folder, save_event_detector


@pytest.mark.parametrize("members", [0, 1, 2])
def test_a_window_gets_a_label_calibrated_probabilities_and_the_span_of_its_class(members: int) -> None:
    detector = random_event_detector(members)
    found = detector.predict(windows(20))
    assert found.probability.shape == (20, 4)
    np.testing.assert_allclose(found.probability.sum(1), 1)
    names = np.array([*detector.classes, "none"])
    assert (found.label == names[found.probability.argmax(1)]).all()
    none = found.label == "none"
    assert ((found.start == -1) == none).all()
    length = (found.end - found.start + 1)[~none]
    assert ((length >= LENGTHS[0]) & (length <= LENGTHS[1])).all()


def test_a_window_does_not_depend_on_the_others_and_no_windows_are_allowed() -> None:
    detector, ohlc = random_event_detector(1), windows(5)
    alone = np.concatenate([detector.predict(ohlc[i : i + 1]).probability for i in range(5)])
    np.testing.assert_allclose(detector.predict(ohlc).probability, alone, atol=1e-6)
    assert len(detector.predict(ohlc[:0])) == 0


def test_the_belief_is_the_weighted_mean_of_the_nets() -> None:
    detector, ohlc = random_event_detector(1), windows(4)
    alone = [replace(detector, parts=(replace(part, weight=1.0),)).read(ohlc) for part in detector.parts]
    for name in ("probability", "maps"):
        wanted = sum(part.weight * getattr(one, name) for part, one in zip(detector.parts, alone, strict=True))
        np.testing.assert_allclose(getattr(detector.read(ohlc), name), wanted, atol=1e-4)


def test_windows_that_are_no_bars_are_refused() -> None:
    broken = windows(2)
    broken[1, 3, 1] = np.nan
    with pytest.raises(UserError, match="window 1, step 3 is not a bar"):
        random_event_detector().predict(broken)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": ("a", "b", "none")}, "none of them 'none'"),
        ({"classes": ("a", "b")}, "the classes are"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"inputs": "path"}, "inputs='path'"),
        ({"parts": ()}, "0 nets sum to 0"),
        ({"inputs": "both"}, "needs an encoder"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(random_event_detector(), **change)


def test_a_net_that_reads_columns_which_are_not_there_is_refused() -> None:
    net = JointNet(NetShape(56, 3, LENGTHS), 8)
    with pytest.raises(ValueError, match="reads columns 4 to 60 of 56"):
        replace(random_event_detector(), parts=(EventPart(net, (4, 60), 1.0),))


@pytest.mark.parametrize("members", [0, 1, 2])
def test_a_saved_event_detector_finds_the_same(tmp_path: Path, members: int) -> None:
    detector = random_event_detector(members)
    save_event_detector(detector, tmp_path / "one")
    loaded = load_event_detector_folder(tmp_path / "one")
    before, after = detector.predict(windows()), loaded.predict(windows())
    np.testing.assert_array_equal(after.probability, before.probability)
    np.testing.assert_array_equal(after.start, before.start)
    for name in ("classes", "temperature", "calibration", "threshold", "inputs"):
        assert getattr(loaded, name) == getattr(detector, name)
    assert loaded.card["model_id"] == "by hand"
    assert not any(part.net.training for part in loaded.parts)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    save_event_detector(loaded, tmp_path / "two")
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_the_card_tells_the_two_kinds_of_detectors_apart(tmp_path: Path) -> None:
    save_event_detector(random_event_detector(), tmp_path / "event")
    save_detector(small_detector(), tmp_path / "span")
    kinds = [detector_kind(read_detector_card(tmp_path / name / "detector.json")) for name in ("event", "span")]
    assert kinds == ["event", "span"]
    with pytest.raises(UserError, match="holds an event detector"):
        load_detector_folder(tmp_path / "event")
    with pytest.raises(UserError, match="holds a span detector"):
        load_event_detector_folder(tmp_path / "span")
    with pytest.raises(UserError, match="kind 'newer'; this version knows span and event"):
        detector_kind({"kind": "newer"})


def edited(*keys: str, value: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        card = json.loads((folder / "detector.json").read_text())
        part = card
        for key in keys[:-1]:
            part = part[int(key) if key.isdecimal() else key]
        part[keys[-1]] = value
        (folder / "detector.json").write_text(json.dumps(card))

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        edited("architecture", "lengths", value=[4, 10]),
        edited("architecture", "nets", "0", "hidden", value=10**9),
        edited("architecture", "nets", "0", "name", value="pickle"),
        edited("architecture", "nets", "0", "weight", value=0.9),
        edited("architecture", "nets", value=[]),
        edited("calibration", value={}),
        edited("calibration", value={"slope": -1, "offset": 0}),
        edited("classes", value=["a"]),
        edited("threshold", value=None),
        lambda folder: (folder / "weights.safetensors").write_bytes(b"no tensors"),
        lambda folder: (folder / "weights.safetensors").unlink(),
    ],
)
def test_a_broken_folder_is_refused_with_a_reason(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    save_event_detector(random_event_detector(), tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=r"is not a (readable )?detector folder"):
        load_event_detector_folder(tmp_path)


def test_a_detector_runs_under_no_grad_and_leaves_its_weights_alone() -> None:
    detector = random_event_detector(1)
    before = [tensor.clone() for part in detector.parts for tensor in part.net.state_dict().values()]
    detector.read(windows(3))
    after = [tensor for part in detector.parts for tensor in part.net.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
