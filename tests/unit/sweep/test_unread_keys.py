"""Keys that a fine-tuning does not read: refused where they are given, told where others leave them without effect."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from paths import ROOT

from moola_mlflow.core import Config, read_preset, resolve
from moola_mlflow.core.errors import UserError
from moola_mlflow.evaluation.methods import UNREAD, head_settings, refuse_unread, without_effect
from moola_mlflow.labels.targets import Targets
from moola_mlflow.sweep.space import Space
from moola_mlflow.tracking.run import Run
from moola_mlflow.training.head import HeadInputs, HeadSettings, fit_head

CONFIGS = ROOT / "configs"


@pytest.mark.parametrize(
    "key", ["schedule.warmup_epochs=2.5", "objective.name=price_path", "windows.stride=7", "split.train=0.7",
            "bars.path=x", "tracking.resume=auto", "sweep.n_trials=3", "runtime.shards=2"]
)  # fmt: skip
def test_a_key_that_is_not_read_is_refused_by_name(key: str) -> None:
    name, value = key.split("=")
    with pytest.raises(UserError, match=f"finetune does not read {name}={value}: "):
        refuse_unread(resolve({}, {name: value}))


def test_a_key_that_repeats_the_default_is_none_that_was_given() -> None:
    config = Config.model_validate(resolve(read_preset(CONFIGS / "finetune.yaml"), {}).model_dump())
    refuse_unread(config)  # a whole tree, as a run's config.yaml is
    assert "objective.name" not in config.given()
    assert config.given()["trainer.batch_size"] == 29


@pytest.mark.parametrize("preset", ["finetune.yaml", "phase2.yaml"])
def test_the_presets_of_fine_tuning_hold_no_key_in_vain(preset: str) -> None:
    config = resolve(read_preset(CONFIGS / preset), {})
    refuse_unread(config)
    assert without_effect(config) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"encoder.hidden": 3, "finetune.encoder": "e"}, "encoder.hidden=3; a given encoder brings its own"),
        ({"encoder.hidden": 3}, ""),
        ({"labels.n": 60, "labels.path": "l.parquet"}, "labels.n=60; the labels come from a file"),
        ({"finetune.unfreeze_at": 3}, "finetune.unfreeze_at=3; the encoder is frozen"),
    ],
)
def test_a_key_that_another_leaves_without_effect_is_told(given: dict[str, object], told: str) -> None:
    said = without_effect(resolve({}, given))
    assert (told in " ".join(said)) if told else said == []


def test_parameters_without_effect_are_left_out_and_the_file_and_hash_hold_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    config = resolve({}, {"finetune.gamma": 2})
    try:
        with Run.start("label", "unread") as active:
            active.config(config, UNREAD)
        logged = mlflow.MlflowClient().get_run(active.id).data
        text = mlflow.artifacts.load_text(f"runs:/{active.id}/config.yaml")
    finally:
        mlflow.set_tracking_uri(before)
    assert set(config.flat()) - set(logged.params) == {key for key in config.flat() if key.startswith(UNREAD)}
    assert logged.params["finetune.gamma"] == "2.0"
    assert (text, logged.tags["moola.config_sha256"]) == (config.to_yaml(), config.sha256())


def test_the_encoder_cannot_stay_frozen_by_an_epoch_that_never_comes() -> None:
    late = {"finetune.encoder": "e", "finetune.freeze": "false", "trainer.epochs": 4}
    assert head_settings(resolve({}, {**late, "finetune.unfreeze_at": 3})).unfreeze_at == 3
    with pytest.raises(UserError, match=r"unfreeze_at=4 lies beyond the 4 epochs .*allowed: 0 to 3"):
        head_settings(resolve({}, {**late, "finetune.unfreeze_at": 4}))


def test_the_gradient_is_clipped_where_the_configuration_says() -> None:
    assert head_settings(resolve({}, {"trainer.clip_norm": "0.5"})).clip_norm == 0.5
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(12, 105, 3)).astype(np.float32))
    label, start = rng.integers(0, 2, 12), rng.integers(20, 60, 12)
    targets = Targets(label, start, start + 6, np.zeros((12, 105, 4)), 2)

    def first(clip: float) -> torch.Tensor:
        settings = HeadSettings(epochs=1, batch_size=4, clip_norm=clip, weight_decay=0.0, mirror=False)
        fitted = fit_head(HeadInputs(x), targets, np.arange(12), np.zeros(0, np.int64), settings, 1)
        return torch.cat([p.detach().flatten() for p in fitted.model.parameters()])

    assert torch.equal(first(1e6), first(1e6))
    # AdamW takes no notice of the gradient's scale, but of a clip that differs from step to step.
    assert not torch.equal(first(1e6), first(1.0))
    moved = (first(1e6) - first(1e-9)).abs().max()
    assert moved > 1e-3  # so small a gradient is lost in AdamW's epsilon


def test_a_sweep_of_heads_does_not_search_what_they_do_not_read() -> None:
    sweep = {"stage": "finetune", "space": {"schedule.warmup_epochs": {"low": 0.0, "high": 5.0}}}
    with pytest.raises(UserError, match=r"finetune does not read 'schedule.warmup_epochs'"):
        Space.of(resolve({"sweep": sweep}, {}))
