"""Keys of a fine-tuning that have no effect because of other keys, and what the configuration says of its head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from paths import ROOT

from moola_mlflow.core import FinetuneKeys, UserError, make_config, read_preset
from moola_mlflow.evaluation.methods import head_settings, ineffective_keys
from moola_mlflow.labels import Targets
from moola_mlflow.training.head import HeadInputs, HeadSettings, fit_head

CONFIGS = ROOT / "configs"


def test_a_key_that_repeats_the_default_is_none_that_was_given() -> None:
    preset = make_config(FinetuneKeys, read_preset(CONFIGS / "finetune.yaml"), {})
    config = FinetuneKeys.model_validate(preset.model_dump())  # every key, as in a run's config.yaml
    assert "finetune.gamma" not in config.given()
    assert config.given()["trainer.batch_size"] == 29


@pytest.mark.parametrize("preset", ["finetune.yaml", "phase2.yaml"])
def test_the_presets_of_fine_tuning_hold_no_key_in_vain(preset: str) -> None:
    tree = read_preset(CONFIGS / preset)
    config = make_config(FinetuneKeys, tree, {})
    assert {f"{section}.{key}" for section, keys in tree.items() for key in keys} <= set(config.flat())
    assert ineffective_keys(config) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"encoder.hidden": 3, "finetune.encoder": "e"}, "encoder.hidden=3; a given encoder has its own"),
        ({"encoder.hidden": 3}, ""),
        ({"features.set": "relativity10", "finetune.encoder": "e"}, "features.set=relativity10; a given encoder has"),
        (
            {"features.set": "relativity10", "finetune.encoder": "e", "finetune.inputs": "encoding+features"},
            "",
        ),
        ({"labels.n": 60, "labels.path": "l.parquet"}, "labels.n=60; the labels come from a file"),
        ({"finetune.unfreeze_at": 3}, "finetune.unfreeze_at=3; the encoder is frozen"),
    ],
)
def test_a_key_that_another_leaves_without_effect_is_told(given: dict[str, object], told: str) -> None:
    said = ineffective_keys(make_config(FinetuneKeys, {}, given))
    assert (told in " ".join(said)) if told else said == []


def test_the_encoder_cannot_stay_frozen_by_an_epoch_that_never_comes() -> None:
    late = {"finetune.encoder": "e", "finetune.freeze": "false", "trainer.epochs": 4}
    assert head_settings(make_config(FinetuneKeys, {}, {**late, "finetune.unfreeze_at": 3})).unfreeze_at == 3
    with pytest.raises(UserError, match=r"unfreeze_at=4 lies beyond the 4 epochs .*allowed: 0 to 3"):
        head_settings(make_config(FinetuneKeys, {}, {**late, "finetune.unfreeze_at": 4}))


def test_the_gradient_is_clipped_where_the_configuration_says() -> None:
    assert head_settings(make_config(FinetuneKeys, {}, {"trainer.clip_norm": "0.5"})).clip_norm == 0.5
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
