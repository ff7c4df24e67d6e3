"""Files and names that mean harm: nothing in them runs, nothing in them becomes markup, each is refused in words."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
from pathlib import Path

import mlflow
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name
from small_models import small_detector, small_encoder

from moola_mlflow.cli.steps import CLASS_NAME
from moola_mlflow.core import PretrainKeys, make_config, read_preset
from moola_mlflow.core.errors import GateError, TrainingError, UserError
from moola_mlflow.evaluation.gates import Gate, gates_markdown
from moola_mlflow.models.files import checkpoint
from moola_mlflow.models.files.detector import load_detector_folder, save_detector
from moola_mlflow.models.files.encoder import load_from_path, save_encoder
from moola_mlflow.tracking import Tags
from moola_mlflow.tracking.registry import promotion
from moola_mlflow.tracking.registry.models import load_encoder
from moola_mlflow.tracking.run import Run


class Payload:
    """What unpickling would run."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> object:
        return (os.mkdir, (str(self.target),))


def test_a_checkpoint_that_carries_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "model_state_dict": Payload(tmp_path / "ran")}, tmp_path / "x.pt")
    for load in (checkpoint.load_checkpoint, load_from_path):
        with pytest.raises(UserError):
            load(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_a_preset_that_carries_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    preset = tmp_path / "x.yaml"
    preset.write_text(f"trainer: !!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']")
    with pytest.raises(UserError, match="is not YAML"):
        read_preset(preset)
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    encoder = small_encoder()
    save_encoder(encoder, encoder.card, root / "encoder")
    save_detector(small_detector(), root / "detector")
    return {"encoder": root / "encoder", "detector": root / "detector"}


HURT: dict[str, dict[str, object]] = {
    "features absent": {"features": None},
    "features of no set": {"features": {"set": "relativity99", "hybrid": {}}},
    "features of another number": {"features": {"set": "relativity10", "hybrid": {}}},
    "a list as hybrid": {"features": {"set": "relativity11", "hybrid": [1]}},
    "a hybrid rule of another kind": {"features": {"set": "relativity11", "hybrid": {"lookback": "many"}}},
    "window absent": {"window": None},
    "window without warm-up": {"window": {"length": 105, "stride": 52}},
    "window of no length": {"window": {"length": -1, "stride": 52, "warmup": 20}},
    "objective a text": {"objective": "masked"},
    "objective without a name": {"objective": {"name": 3}},
    "data a list": {"data": []},
    "model_id a list": {"model_id": []},
    "one end of its time": {"trained_from": "2024-01-01"},
    "no time": {"trained_from": "2024-01-01", "trained_until": "soon"},
}


@pytest.mark.parametrize("case", HURT)
def test_an_encoder_whose_card_lacks_what_its_readers_need_is_refused_in_one_line(
    folders: dict[str, Path], tmp_path: Path, case: str
) -> None:
    copy = shutil.copytree(folders["encoder"], tmp_path / "copy")
    card = {**json.loads((copy / "encoder.json").read_text()), **HURT[case]}
    (copy / "encoder.json").write_text(json.dumps({key: part for key, part in card.items() if part is not None}))
    with pytest.raises(UserError, match="is not a readable encoder folder") as refused:
        load_from_path(copy)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "part",
    [{"labels": [1]}, {"labels": {"labelled_from": "2024-01-01"}}, {"evidence": "good"}, {"encoders": ["x"]},
     {"labels": {"labelled_from": "soon", "labelled_until": "later"}}, {"labels": {"counts": 3}}],
    ids=str,
)  # fmt: skip
def test_a_detector_whose_card_is_of_another_shape_is_refused(
    folders: dict[str, Path], tmp_path: Path, part: dict[str, object]
) -> None:
    copy = shutil.copytree(folders["detector"], tmp_path / "copy")
    card = json.loads((copy / "detector.json").read_text())
    (copy / "detector.json").write_text(json.dumps({**card, **part}))
    with pytest.raises(UserError, match="is not a readable description of a detector"):
        load_detector_folder(copy)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"config": {}, "run_id": "x"},
        {"config": {"encoder": {"hidden": 4}}, "run_id": "x", "epoch": "last"},
        {"config": [1], "run_id": "x", "epoch": 1},
        {"config": {"encoder": 3}, "run_id": "x", "epoch": 1},
        {"config": {"encoder": {"size": 3}}, "run_id": "x", "epoch": 1},
        {"config": {}, "run_id": "x", "epoch": 1, "model_state_dict": [1]},
        {"config": {}, "run_id": "x", "epoch": 1, "model_state_dict": {"encoder.x": torch.ones(2)}},
        {"sha256": "00", "model_state_dict": {"w": torch.eye(3).to_sparse()}},
        {"sha256": "00", "model_state_dict": {"w": torch.ones(3, device="meta")}},
    ],
    ids=lambda state: f"{sorted(state)} {state.get('config')!s}",
)
def test_a_checkpoint_of_another_program_is_refused_in_words(tmp_path: Path, state: dict[str, object]) -> None:
    path = tmp_path / "checkpoint_latest.pt"
    torch.save({"model_state_dict": {"w": torch.ones(3)}, **state}, path)
    with pytest.raises(UserError, match=r"checkpoint_latest\.pt"):
        load_from_path(path)
    with pytest.raises(UserError, match="no readable checkpoint"):
        checkpoint.Checkpointer(tmp_path).load_latest()


WHOLE = {
    **{"nothing": b"", "null": b"null", "list": b"[]", "object": b"{}", "infinite": b'{"a":1e999}'},
    **{"deep": b"[" * 100_000, "not text": b"\xff\xfe"},
}
LOAD = {"encoder": load_from_path, "detector": load_detector_folder}


@pytest.mark.parametrize("hidden", [2**62, 10**9, 65_536, 0, -1, "8", None, [8], float("nan"), 1e300, True])
def test_an_encoder_that_claims_another_size_is_refused_without_memory_for_it(
    folders: dict[str, Path], tmp_path: Path, hidden: object
) -> None:
    card = json.loads((folders["encoder"] / "encoder.json").read_text())
    card["architecture"]["hidden"] = hidden
    (tmp_path / "encoder.json").write_text(json.dumps(card))
    (tmp_path / "weights.safetensors").write_bytes((folders["encoder"] / "weights.safetensors").read_bytes())
    if hidden == "8" and card["architecture"]["output_size"] == 16:
        return  # a text that says the true number is the number
    with pytest.raises(UserError):
        load_from_path(tmp_path)


@pytest.mark.parametrize("inputs", [2**40, -1, 0, "many", None])
def test_a_detector_that_claims_another_size_is_refused_without_memory_for_it(
    folders: dict[str, Path], tmp_path: Path, inputs: object
) -> None:
    copy = shutil.copytree(folders["detector"], tmp_path / "copy")
    card = json.loads((copy / "detector.json").read_text())
    card["architecture"]["num_inputs"] = inputs
    (copy / "detector.json").write_text(json.dumps(card))
    with pytest.raises(UserError):
        load_detector_folder(copy)


@pytest.mark.parametrize("kind", ["encoder", "detector"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_model_folder_loads_or_is_refused(
    folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject
) -> None:
    source = folders[kind]
    files = sorted(path for path in source.rglob("*") if path.is_file())
    hurt = data.draw(st.sampled_from(files))
    content = hurt.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    damage = data.draw(st.sampled_from(["flip", "cut", "fill", "swap"]))
    if damage == "flip":
        content = content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
    elif damage == "cut":
        content = content[:at]
    elif damage == "fill":
        content = content[:at] + data.draw(st.binary(max_size=30)) + content[at:]
    else:
        content = WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))]
    copy = tmp_path_factory.mktemp("copy")
    for path in files:
        target = copy / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if path == hurt else path.read_bytes())
    with contextlib.suppress(UserError):
        LOAD[kind](copy)


@given(name=st.text(st.sampled_from("aZ9_ .:-/é\n<`'"), min_size=1, max_size=8))
def test_a_class_that_is_accepted_is_a_name_that_mlflow_takes_too(name: str) -> None:
    if CLASS_NAME.fullmatch(name):
        _validate_metric_name(f"cv/recall/{name}")


@pytest.mark.parametrize("name", ["..", "../x", "a/../b", ".", "a/.", "<b>", "a\nb", "", "/a", "a//b"])
def test_a_class_that_could_lead_elsewhere_is_none(name: str) -> None:
    assert not CLASS_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a|b", "`x`", "[x](http://example.org)", "a\nb"])
def test_a_class_of_any_name_stays_text_in_the_table_of_gates(name: str) -> None:
    table = gates_markdown([Gate(f"recall/{name}", 0.5, 0.3, ">=")])
    assert len(table.splitlines()) == 3
    row = table.splitlines()[-1]
    assert "<" not in row
    assert row.replace("\\|", "").count("|") == 5
    assert "](" not in row.replace("\\]", "")


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")
def test_a_new_local_store_and_the_runs_folder_are_their_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mlflow.get_tracking_uri()
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    old = os.umask(0o022)
    try:
        with Run.start("data", "private") as active:
            active.text("words", "words.txt")
    finally:
        os.umask(old)
        mlflow.set_tracking_uri(before)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("mlflow.db", "mlruns", ".moola")}
    assert modes == {"mlflow.db": 0o600, "mlruns": 0o700, ".moola": 0o700}


HOSTILE = "![x](http://evil.example/p.png) <img src=x onerror=alert(1)> **b** `c`"


@pytest.mark.parametrize("error", [UserError, TrainingError, GateError, RuntimeError])
def test_the_note_of_a_failed_run_shows_names_as_the_characters_they_have(
    workdir: Path, error: type[Exception]
) -> None:
    def fail() -> None:
        with Run.start("data", "failing") as active:
            runs.append(active)
            raise error(f"2 symbols: {HOSTILE}\n\n- {HOSTILE}\n- of two")

    mlflow.set_tracking_uri(None)
    runs: list[Run] = []
    with pytest.raises(error):
        fail()
    note = mlflow.MlflowClient().get_run(runs[0].id).data.tags[Tags.NOTE]
    assert note.startswith("**Failed:** ")
    assert "<" not in note
    plain = note.replace("\\[", "").replace("\\]", "").replace("\\*", "").replace("\\`", "").removeprefix("**Failed:**")
    assert not set("[]*`") & set(plain)
    if error is not RuntimeError:  # whose first line is enough
        assert note.count("\n- ") == 2


@pytest.mark.parametrize("uri", ["models:/x@nope", "runs:/nope/encoder"])
def test_what_cannot_be_fetched_is_told_without_the_stores_password(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    address = "http://me:s3/cr3t@127.0.0.1:9"
    for key, value in {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_TRACKING_URI": address}.items():
        monkeypatch.setenv(key, value)
    mlflow.set_tracking_uri(address)
    asked = [
        lambda: load_encoder(uri),
        lambda: promotion.fetch_version("x", "1", workdir),
    ]
    for ask in asked:
        with pytest.raises(UserError) as refused:
            ask()
        assert "cr3t" not in str(refused.value)
    mlflow.set_tracking_uri(None)


def test_the_text_of_a_bad_value_is_cut_where_it_is_long() -> None:
    with pytest.raises(UserError) as refused:
        make_config(PretrainKeys, {}, {"trainer.epochs": "9" * 100_000})
    assert len(str(refused.value)) < 2_000
