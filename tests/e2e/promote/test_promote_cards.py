"""promote and the evidence on a card: parts of another kind, gains over other inputs, and a gain that is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from finetuning import NOTE, command, newest
from harness import ROOT, Store, note_of
from small_models import GOOD_EVIDENCE, small_detector, small_encoder

from moola_mlflow.core import read_preset
from moola_mlflow.evaluation.gates import GAIN
from moola_mlflow.models.files.encoder import save_encoder
from tests.e2e.promote.test_promote import NO_GAIN, aliases, register, stored

UNTRAINED = {"encoder": "untrained", "labels.n": "300", "bars.sample_bars": "120000", "folds": "3", "epochs": "10",
             "cv.workers": "1", "seed": "13"}  # fmt: skip
OVER_OTHERS = "over the networks without pre-training, which read an encoding instead of path features"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One store for all tests: each has a registered model of its own."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(autouse=True)
def _in_the_stores_folder(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.folder)
    mlflow.set_tracking_uri(store.uri)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered model of the test's own."""
    return re.sub(r"\W+", "-", request.node.name)


@pytest.fixture
def promote(store: Store) -> Callable[..., tuple[int, str, mlflow.entities.Run]]:
    """Run the command in this process; return its exit code, what it said, and its run."""

    def run(**parameters: str) -> tuple[int, str, mlflow.entities.Run]:
        done = command(store, "promote", **parameters)
        return done.code, done.out + done.err, store.newest()

    return run


ODD = {
    "detector": (
        small_detector,
        [
            ({"evidence": [0.9, 0.9]}, "f1_macro is missing"),
            ({"evidence": "good"}, "identity is missing"),
            ({"evidence": {**GOOD_EVIDENCE, "recall": [0.9, 0.9]}}, "recall/every class is missing"),
            ({"evidence": {**GOOD_EVIDENCE, "delta_joint_success_at_3": [0.2]}}, f"{GAIN} is missing"),
            ({"evidence": {**GOOD_EVIDENCE, "ece": -(10**400)}}, "ece is missing or not finite"),
        ],
    ),
    "encoder": (
        small_encoder,
        [
            ({"probe": [0.2]}, "probe_r2_gain is missing"),
            ({"objective": "path"}, "identity is missing"),
            ({"objective": {"name": 3, "hide_masked": True}}, "identity is missing"),
            ({"quality": "good"}, "feature_faults is missing"),
        ],
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_card_with_parts_of_another_kind_misses_its_gates_and_ends_in_no_traceback(
    store: Store, name: str, promote: Callable, tmp_path: Path, kind: str
) -> None:
    make, odd = ODD[kind]
    register(name, make(), tmp_path)
    card = stored(store, name, f"{kind}.json")
    whole = json.loads(card.read_text())
    for parts, missed in odd:
        card.write_text(json.dumps({**whole, **parts}))
        code, said, run = promote(model=name)
        assert (code, run.info.status) == (3, "FAILED"), said
        assert missed in said
        assert "Traceback" not in said
    card.write_text("[" * 100_000)
    code, said, run = promote(model=name)
    assert (code, run.info.run_id) == (2, store.refused()[0].info.run_id), said
    assert f"{kind}.json cannot be read" in said
    assert aliases(store, name) == {"candidate": "1"}


@pytest.mark.parametrize("earlier", [True, False], ids=["a version before the card said it", "a version of now"])
def test_of_a_detector_on_path_features_it_is_told_over_whom_it_gains(
    store: Store, name: str, promote: Callable, tmp_path: Path, earlier: bool
) -> None:
    told: dict[str, Any] = {} if earlier else {"delta_same_inputs": False}
    register(name, small_detector("price_path", **told), tmp_path)
    code, said, run = promote(model=name)
    assert code == 0, said
    assert f"Gates passed\n- {GAIN} 0.04 > 0, {OVER_OTHERS}\n" in said
    assert f"| delta_joint_success_at_3_lo, {OVER_OTHERS} | 0.04 | > 0 | yes |" in run.data.tags[NOTE]
    assert store.client.get_model_version(name, "1").tags["gates"] == "passed"
    rows = {row["gate"]: row for row in json.loads(store.artifact(run, "gates.json").read_text())}
    assert rows[GAIN]["about"] == OVER_OTHERS
    register(name, small_detector("price_path", **told, **NO_GAIN), tmp_path)
    code, said, run = promote(model=name, version="2")
    assert code == 3
    for text in (said, note_of(run)):
        assert f"{GAIN} -0.05 <= 0 (by 0.05): no sure gain {OVER_OTHERS}" in text


@pytest.mark.slow
def test_a_trained_detector_is_refused_by_the_shipped_gates_where_its_encoder_was_never_trained(
    store: Store, name: str, promote: Callable
) -> None:
    """Its encoder is one more draw of the random networks that it is compared with: there is nothing to gain.

    At seeds 13, 17, 23, 29 and 31 the lower end of the gain is -0.073 to -0.043 (-0.047 at 13, which is run here), and
    every other gate is met: ECE 0.050 to 0.096 (0.058 at 13), F1 0.73 to 0.78, Joint@3 0.65 to 0.69.
    """
    encoder = small_encoder(hidden=2, seed=13)
    save_encoder(encoder, encoder.card, store.folder / "untrained")
    tuned = newest(store, command(store, "finetune", **UNTRAINED, register=name))
    differences = json.loads(store.artifact(tuned, "cv_summary.json").read_text())["differences"]
    low = min(differences[network]["joint_success_at_3"]["lo"] for network in ("scratch", "random_encoder"))
    code, said, run = promote(model=name)
    assert (code, run.info.status) == (3, "FAILED"), said
    shipped = read_preset(ROOT / "configs" / "gates.yaml")["gates"]
    assert {key: store.config(run)["gates"][key] for key in shipped} == shipped
    assert f"{name} version 1 misses 1 of 7 gates" in said
    refusal = (
        rf"^- {GAIN} (-[\d.e-]+) <= 0 \(by ([\d.e-]+)\): no sure gain over the same network from scratch or with a "
    )
    for text in (said, note_of(run)):
        (found,) = re.findall(refusal, text, re.MULTILINE)
        assert [float(figure) for figure in found] == pytest.approx([low, -low], rel=1e-3)
    assert aliases(store, name) == {"candidate": "1"}
    assert GAIN in tuned.data.tags["moola.gates"]
    assert store.client.get_model_version(name, "1").tags["moola.delta_inputs"] == "both"
