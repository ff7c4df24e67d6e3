"""What is compared with what: equal inputs, mirrored windows and epochs for all networks."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from finetune_settings import KINDS, LABELS, encoders_of, setting
from small_models import small_encoder

from moola_mlflow.core import FinetuneKeys, make_config
from moola_mlflow.core.errors import UserError
from moola_mlflow.evaluation.baselines import BASELINES
from moola_mlflow.evaluation.crossval import ClassicalMethod, HeadMethod, Method, NetworkMethod, fresh_copy
from moola_mlflow.evaluation.evidence import DETECTOR, NETWORKS, TITLES
from moola_mlflow.evaluation.folds import plan_folds
from moola_mlflow.evaluation.methods import (
    FinetuneSetting,
    RandomEncoderMethod,
    build_methods,
    head_settings,
    left_out_baselines,
)
from moola_mlflow.features.relativity import compute_features
from moola_mlflow.labels.targets import Targets
from moola_mlflow.models.detector import detector_inputs
from moola_mlflow.models.encoders.ensemble import Ensemble, members_of
from moola_mlflow.training.head import HeadInputs, mirrored
from moola_mlflow.windows.batches import fit_scaling


def methods(given: FinetuneSetting) -> dict[str, Method]:
    return {method.name: method for method in build_methods(given)}


def kind_of(method: Method) -> str:
    if isinstance(method, NetworkMethod):
        return "fresh network" if method.fresh else "network"
    return "head" if isinstance(method, HeadMethod | RandomEncoderMethod) else "classical"


# Which methods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_detector_comes_first_and_every_baseline_that_has_a_meaning_beside_it(kind: str) -> None:
    found = {name: kind_of(method) for name, method in methods(setting(kind)).items()}
    detector = {"unfrozen": "network", "ensemble trained on": "network", "scratch": "fresh network"}.get(kind, "head")
    expected = {DETECTOR: detector, "scratch": "fresh network", "pooled_scratch": "fresh network"}
    expected |= {"random_encoder": "head", "path_features": "head", **dict.fromkeys(BASELINES, "classical")}
    if kind == "scratch":
        del expected["scratch"]
    if kind == "price_path":
        del expected["path_features"]
    assert found == expected
    assert list(found) == list(expected)
    assert set(found) <= set(TITLES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quick_comparison_leaves_out_what_trains_an_encoder_or_reads_a_random_one_and_names_it(kind: str) -> None:
    every, quick = methods(setting(kind)), methods(setting(kind, cv__baselines="quick"))
    left_out = left_out_baselines(setting(kind, cv__baselines="quick"))
    assert [name for name in every if name not in quick] == left_out
    assert set(left_out) == {"scratch", "pooled_scratch", "random_encoder"} & set(every)
    assert left_out_baselines(setting(kind)) == []
    assert not any(isinstance(method, RandomEncoderMethod) for method in quick.values())


@pytest.mark.parametrize(("kind", "inputs"), list(product(("frozen", "ensemble"), ("encoding", "both"))))
def test_a_frozen_detector_reads_what_it_will_read_when_it_serves(kind: str, inputs: str) -> None:
    given = setting(kind, finetune__inputs=inputs)
    detector = methods(given)[DETECTOR]
    assert isinstance(detector, HeadMethod)
    assert torch.equal(detector.inputs.values, detector_inputs(given.encoder, inputs, LABELS.ohlc))


@pytest.mark.parametrize("kind", [*KINDS, "frozen encoding"])
def test_every_network_without_pretraining_reads_what_the_detector_reads_or_an_encoding_in_its_place(kind: str) -> None:
    given = setting("frozen", finetune__inputs="encoding") if kind == "frozen encoding" else setting(kind)
    alone = kind in ("frozen encoding", "price_path")
    found, path = methods(given), 0 if alone else 56
    assert given.baseline_inputs == ("encoding" if alone else "both")
    for name in NETWORKS:
        method = found.get(name)
        if isinstance(method, NetworkMethod):
            assert method.features.values.shape[-1] == given.architecture.input_size + path
        elif isinstance(method, RandomEncoderMethod):
            assert method.inputs(LABELS.ohlc, 1).shape[-1] == (given.encoder or given.architecture).output_size + path
    pooled = found["pooled_scratch"]
    assert isinstance(pooled, NetworkMethod)
    assert (pooled.settings.head, pooled.features.values.shape[-1]) == ("pooled", pooled.encoder.input_size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("base", ["encoding", "price_path", "both"])
def test_networks_without_pretraining_read_the_hand_made_features_too(kind: str, base: str) -> None:
    kind = "price_path" if base == "price_path" else kind
    keys = {"finetune__inputs": f"{base}+features", "features__set": "relativity10"}
    given, further = setting(kind, **keys), 10 + 56 * (base == "both")
    found = methods(given)
    assert given.baseline_inputs == ("encoding+features" if base == "price_path" else f"{base}+features")
    own = torch.from_numpy(compute_features(LABELS.ohlc, "relativity10"))
    for name in ("scratch", "random_encoder"):
        method = found.get(name)
        if isinstance(method, NetworkMethod):
            values = method.features.values
            assert values.shape[-1] == given.architecture.input_size + further
            assert torch.equal(values[..., -10:], own)
        elif isinstance(method, RandomEncoderMethod):
            values = method.inputs(LABELS.ohlc, 1)
            assert values.shape[-1] == (given.encoder or given.architecture).output_size + further
            assert torch.equal(values[..., -10:], own)
    assert ("hand_made" in found) == (base != "price_path")
    if "hand_made" in found:
        path = read_by(found["path_features"]).values
        assert torch.equal(read_by(found["hand_made"]).values, torch.cat([path, own], -1))


def read_by(method: Method) -> HeadInputs:
    assert isinstance(method, HeadMethod | NetworkMethod)
    return method.inputs if isinstance(method, HeadMethod) else method.features


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_gets_the_windows_upside_down_or_none_does(kind: str) -> None:
    given, plain = setting(kind), setting(kind, finetune__mirror=False)
    upside_down = methods(replace(given, labels=replace(LABELS, ohlc=mirrored(LABELS.ohlc))))
    for name, method in methods(given).items():
        if isinstance(method, ClassicalMethod | RandomEncoderMethod):  # the latter makes its own, for each fold
            continue
        read, turned = read_by(method), read_by(upside_down[name])
        assert read.mirrored is not None
        assert torch.equal(read.mirrored, turned.values), name
        assert not torch.equal(read.mirrored, read.values)
        assert method.settings.mirror
    unturned = [method for method in methods(plain).values() if isinstance(method, HeadMethod | NetworkMethod)]
    assert unturned
    assert all(read_by(method).mirrored is None for method in unturned)


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_gets_the_detectors_epochs_batches_and_patience(kind: str) -> None:
    keys = {"trainer__epochs": 7, "trainer__batch_size": 11, "trainer__patience": 3, "finetune__class_balanced": True}
    found = [
        method.settings for method in methods(setting(kind, **keys)).values() if not isinstance(method, ClassicalMethod)
    ]
    assert len(found) >= 4
    assert {(s.epochs, s.batch_size, s.patience, s.class_balanced, s.lr) for s in found} == {(7, 11, 3, True, 4e-3)}


def test_learning_rates_follow_what_is_trained() -> None:
    config = setting("unfrozen", optimizer__lr=1e-4, finetune__head_lr=4e-3, finetune__unfreeze_at=10).config
    tuned, fresh = head_settings(config), head_settings(config, fresh=True)
    assert (tuned.lr, tuned.encoder_lr, tuned.unfreeze_at) == (4e-3, 1e-4, 10)
    assert (fresh.lr, fresh.encoder_lr, fresh.unfreeze_at) == (4e-3, 1e-3, 0)
    assert head_settings(setting("unfrozen", finetune__encoder_lr=2e-5).config).encoder_lr == 2e-5


@pytest.mark.parametrize("kind", ["frozen", "ensemble", "price_path"])
def test_the_random_encoder_is_the_detectors_with_other_weights_in_every_unit(kind: str) -> None:
    given = setting(kind)
    method = methods(given)["random_encoder"]
    assert isinstance(method, RandomEncoderMethod)
    one, same, other = (method.inputs(LABELS.ohlc, draw) for draw in (5, 5, 6))
    size = (given.encoder or given.architecture).output_size
    random = fresh_copy(given.encoder or given.architecture, 5)
    assert torch.equal(one, detector_inputs(random, "encoding" if kind == "price_path" else "both", LABELS.ohlc))
    assert torch.equal(one, same)
    assert not torch.equal(one[..., :size], other[..., :size])
    assert torch.equal(one[..., size:], other[..., size:])  # the path features
    if given.encoder is not None:
        detector = methods(given)[DETECTOR]
        assert isinstance(detector, HeadMethod)
        assert not torch.equal(one[..., :size], detector.inputs.values[..., :size])
        assert torch.equal(one[..., size:], detector.inputs.values[..., size:])


def test_a_network_from_scratch_knows_of_the_pretrained_one_only_its_architecture() -> None:
    given = setting("frozen")
    scratch = methods(given)["scratch"]
    assert isinstance(scratch, NetworkMethod)
    changed = setting("frozen", [small_encoder(hidden=4, seed=9)])
    other = methods(changed)["scratch"]
    assert isinstance(other, NetworkMethod)
    one, two = scratch.start(np.arange(12), 3).state_dict(), other.start(np.arange(12), 3).state_dict()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("kind", ["ensemble", "ensemble trained on", "price_path with two encoders"])
def test_of_an_ensemble_every_network_without_pretraining_is_the_whole_and_the_published_one_a_members(
    kind: str,
) -> None:
    path = kind.startswith("price_path")
    given = setting("price_path", encoders_of("ensemble")) if path else setting(kind)
    found = methods(given)
    scratch, pooled, random = (found[name] for name in ("scratch", "pooled_scratch", "random_encoder"))
    assert isinstance(scratch, NetworkMethod)
    assert isinstance(pooled, NetworkMethod)
    assert isinstance(random, RandomEncoderMethod)
    assert (scratch.encoder.input_size, scratch.encoder.output_size) == (11 + 10, 8 + 6)
    assert random.encoder.output_size == 8 + 6
    assert (pooled.encoder.input_size, pooled.encoder.output_size, pooled.features.values.shape[-1]) == (11, 8, 11)
    apart = [compute_features(LABELS.ohlc, name) for name in ("relativity11", "relativity10")]
    assert torch.equal(scratch.features.values[..., :21], torch.from_numpy(np.concatenate(apart, -1)))
    assert scratch.features.values.shape[-1] == 21 + (0 if path else 56)


def test_an_ensemble_from_scratch_knows_of_its_members_their_architectures_and_the_units_windows() -> None:
    scratch = methods(setting("ensemble"))["scratch"]
    assert isinstance(scratch, NetworkMethod)
    fit = np.arange(12)
    one, same, other = (scratch.start(fit, seed) for seed in (3, 3, 4))
    assert isinstance(one, Ensemble)
    for name, tensor in one.state_dict().items():
        given = scratch.encoder.state_dict()[name]
        assert torch.equal(tensor, same.state_dict()[name])
        assert not torch.equal(tensor, given), name
        assert torch.equal(tensor, other.state_dict()[name]) == (name.rpartition(".")[2] in ("mean", "std")), name
    for member, features in zip(members_of(one), ("relativity11", "relativity10"), strict=True):
        mean, std = fit_scaling(compute_features(LABELS.ohlc[fit], features), 20)
        torch.testing.assert_close(member.mean, mean)
        torch.testing.assert_close(member.std, std)


def test_an_ensembles_scaling_from_scratch_waits_for_the_slowest_members_features() -> None:
    slow = small_encoder(hidden=3, seed=2)
    slow.card = {**slow.card, "window": {**slow.card["window"], "warmup": 40}}
    for encoders in ([small_encoder(), slow], [slow, small_encoder()]):
        scratch = methods(setting("ensemble", encoders))["scratch"]
        assert isinstance(scratch, NetworkMethod)
        assert scratch.warmup == 40


def test_an_ensemble_from_scratch_is_trained_member_by_member_and_predicts() -> None:
    given = setting("ensemble", trainer__epochs=1)
    scratch, pooled = (methods(given)[name] for name in ("scratch", "pooled_scratch"))
    (fold, *_) = plan_folds(LABELS, make_config(FinetuneKeys, {}, {"cv.folds": 2}).cv, (17,))
    before = {name: tensor.clone() for name, tensor in given.architecture.state_dict().items()}
    for method in (scratch, pooled):
        outcome = method.run(Targets.of(LABELS), fold)
        assert outcome.probability.shape == (len(fold.test), 2)
        assert np.isfinite(outcome.probability).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.architecture.state_dict().items())


# What cannot be put together ---------------------------------------------------------------------------------------


def test_an_encoder_of_other_windows_and_an_unknown_head_are_refused_with_the_cure() -> None:
    longer = small_encoder()
    longer.card = {**longer.card, "window": {"length": 210, "stride": 52, "warmup": 20}}
    with pytest.raises(UserError, match="windows of 210 bars, the labels hold 105; take an encoder trained with"):
        setting("frozen", [small_encoder(), longer])
    with pytest.raises(UserError, match=r"finetune.head='spam' is unknown; did you mean 'span'\?"):
        setting("price_path", finetune__head="spam")
