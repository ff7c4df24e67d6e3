"""Which methods a fine-tuning of an event detector compares, and what each reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from small_events import encoder_of_rules, labels_of, looked_at
from small_models import small_encoder

from moola_mlflow.core import FinetuneKeys, make_config, read_preset, shipped_presets
from moola_mlflow.core.errors import UserError
from moola_mlflow.evaluation.event_baselines import ScratchMethod
from moola_mlflow.evaluation.event_evidence import EVENT_TITLES
from moola_mlflow.evaluation.event_methods import (
    EventBaseline,
    EventMethod,
    EventSetting,
    build_event_methods,
    fit_event_methods,
    ineffective_event_keys,
    left_out_event_baselines,
    make_event_setting,
    without_priors,
)
from moola_mlflow.evaluation.unlabelled_windows import UnlabelledWindows
from moola_mlflow.models import EventFit, Unlabelled
from moola_mlflow.models.encoders.ensemble import Ensemble
from moola_mlflow.models.events.fitting import EventSettings
from moola_mlflow.models.events.presence import PresenceReader

QUICK = EventSettings(epochs=1, min_steps=4, folds=3, hidden=8)


def config(**keys: object) -> FinetuneKeys:
    return make_config(FinetuneKeys, {}, {key.replace("__", "."): value for key, value in keys.items()})


def quick(methods: Sequence[EventMethod | EventBaseline]) -> list[EventMethod | EventBaseline]:
    return [replace(method, settings=QUICK) for method in methods]


def event_methods(setting: EventSetting) -> list[EventMethod]:
    """Return the methods that are event detectors."""
    return [method for method in build_event_methods(setting) if isinstance(method, EventMethod)]


def names(setting: EventSetting) -> list[str]:
    return [method.name for method in build_event_methods(setting)]


def test_without_an_encoder_the_detector_reads_price_path_features_beside_other_readers_of_them() -> None:
    setting = make_event_setting(looked_at(), [], config())
    assert (setting.inputs, setting.reads_encoding, setting.reader) == ("price_path", False, "head")
    assert names(setting) == ["detector", "span_nets", "boosted_steps"]
    by_rule = replace(setting, labels=replace(looked_at(), rule="surge-1"))
    assert names(by_rule) == ["detector", "span_nets", "boosted_steps", "rule"]


def test_an_encoder_of_rules_is_read_by_prior_readers_beside_path_features() -> None:
    setting = make_event_setting(looked_at(), [encoder_of_rules()], config())
    assert (setting.inputs, setting.reader) == ("both", "prior")
    assert names(setting) == [
        "detector", "random_encoder", "path_features", "span_nets", "scratch", "boosted_steps"
    ]  # fmt: skip
    assert [method.source.inputs for method in event_methods(setting)] == ["both", "both", "price_path", "price_path"]


def test_the_encoder_from_scratch_has_the_architecture_of_the_given_one_and_its_own_learning_rate() -> None:
    setting = make_event_setting(looked_at(), [encoder_of_rules()], config(finetune__scratch_lr=0.002))
    (scratch,) = (method for method in build_event_methods(setting) if isinstance(method, ScratchMethod))
    assert (scratch.inputs, scratch.how.lr) == ("both", 0.002)
    assert scratch.encoder.card == encoder_of_rules().card
    assert scratch.encoder.task_heads is None


def test_a_quick_comparison_leaves_out_the_networks_without_pre_training_and_names_them() -> None:
    setting = make_event_setting(looked_at(), [encoder_of_rules()], config(cv__baselines="quick"))
    assert names(setting) == ["detector", "path_features", "span_nets", "boosted_steps"]
    assert left_out_event_baselines(setting) == ["random_encoder", "scratch"]
    without = make_event_setting(looked_at(), [], config(cv__baselines="quick"))
    assert left_out_event_baselines(without) == []


def test_hand_made_features_are_compared_with_less_and_named() -> None:
    alone = make_event_setting(looked_at(), [], config(finetune__inputs="price_path+features"))
    assert [(method.name, method.source.inputs) for method in event_methods(alone)] == [
        ("detector", "price_path+features"), ("path_features", "price_path"), ("span_nets", "price_path")
    ]  # fmt: skip
    both = make_event_setting(looked_at(), [encoder_of_rules()], config(finetune__inputs="both+features"))
    (less,) = (method for method in event_methods(both) if method.name == "hand_made")
    assert less.source.inputs == "price_path+features"
    assert EVENT_TITLES[less.name] == "path and hand-made features, same nets"


def test_a_key_that_an_event_detector_does_not_read_is_named() -> None:
    assert ineffective_event_keys(make_config(FinetuneKeys, read_preset(shipped_presets()["finetune"]), {})) == []
    said = ineffective_event_keys(
        config(cv__kind="time", cv__embargo_bars=30, trainer__epochs=9, finetune__gamma=2, cv__folds=3, trainer__seed=5)
    )
    keys = "finetune.gamma=2.0, cv.kind=time, cv.embargo_bars=30, trainer.epochs=9"
    assert len(said) == 1
    assert said[0].startswith(f"no effect: {keys}; an event detector has its own recipe")
    assert "features.set=relativity10" in " ".join(ineffective_event_keys(config(features__set="relativity10")))
    read = config(features__set="relativity10", finetune__inputs="price_path+features")
    assert ineffective_event_keys(read) == []


def test_the_reader_head_reads_the_same_encoding_with_nets() -> None:
    setting = make_event_setting(looked_at(), [encoder_of_rules()], config(finetune__reader="head"))
    fit = replace(event_methods(setting)[0], settings=QUICK).run(looked_at(30), 1)
    assert not any(isinstance(part.net, PresenceReader) for part in fit.detector.parts)


def test_the_random_encoder_has_other_weights_for_each_seed_and_no_heads_of_rules() -> None:
    random = event_methods(make_event_setting(looked_at(), [encoder_of_rules()], config()))[1]
    random = replace(random, settings=QUICK)
    one, other = (random.run(looked_at(30), seed).detector for seed in (1, 2))
    assert one.encoder is not None
    assert other.encoder is not None
    assert one.encoder.task_heads is None
    ohlc = looked_at(5).ohlc
    assert (one.read(ohlc).probability != other.read(ohlc).probability).any()


def test_fits_do_not_depend_on_the_number_of_processes_and_come_in_the_order_of_the_repeats() -> None:
    setting = make_event_setting(looked_at(30), [encoder_of_rules()], config(cv__repeats=2))
    methods = quick(build_event_methods(setting))[:2]
    heard: list[tuple[str, int]] = []
    one = fit_event_methods(setting, methods, on_fit=lambda name, number, fit, seconds: heard.append((name, number)))
    two = fit_event_methods(setting, methods, workers=2)
    assert heard == [("detector", 0), ("random_encoder", 0), ("detector", 1), ("random_encoder", 1)]
    assert [len(fits) for fits in one.values()] == [2, 2]
    for name, fits in one.items():
        for left, right in zip(fits, two[name], strict=True):
            np.testing.assert_allclose(left.held.probability, right.held.probability, atol=1e-6)


def test_after_a_request_to_stop_methods_that_lack_a_fit_are_left_out() -> None:
    setting = make_event_setting(looked_at(30), [], config())
    assert fit_event_methods(setting, quick(build_event_methods(setting)), should_stop=lambda: "SIGINT") == {}


@pytest.mark.parametrize("workers", [1, 4])
def test_a_request_to_stop_is_seen_between_the_nets_of_a_fit_in_this_process(workers: int) -> None:
    setting = make_event_setting(looked_at(30), [], config())
    nets = list[int]()
    done = fit_event_methods(
        setting, quick(build_event_methods(setting))[:1], workers=workers, on_net=lambda: nets.append(1),
        should_stop=lambda: "SIGINT" if len(nets) >= 2 else None,
    )  # fmt: skip
    assert (done, len(nets)) == ({}, 2)


def test_heads_of_rules_are_taken_off_a_copy_alone() -> None:
    ensemble = Ensemble([encoder_of_rules(4, 0), encoder_of_rules(4, 1)])
    bare = without_priors(ensemble)
    assert isinstance(bare, Ensemble)
    assert [member.task_heads for member in bare.members] == [None, None]
    assert all(member.task_heads is not None for member in ensemble.members)


def test_each_repeat_of_each_seed_has_a_seed_of_its_own() -> None:
    setting = EventSetting(looked_at(30), None, config(cv__repeats=3, cv__seeds="5,6"))
    drawn = setting.seeds()
    assert [(seed, repeat) for seed, repeat, _ in drawn] == [(s, r) for s in (5, 6) for r in range(3)]
    assert len({one for _, _, one in drawn}) == 6


@pytest.mark.parametrize(
    ("keys", "encoders", "message"),
    [
        ({"finetune__inputs": "both"}, 0, r"finetune.inputs=both reads an encoding and no encoder is given"),
        ({"finetune__freeze": False}, 1, r"freeze_encoder=false trains the encoder"),
        ({"finetune__reader": "prior"}, 0, r"finetune.reader=prior reads the encodings of an encoder"),
        ({"finetune__reader": "prior"}, 1, r"finetune.reader=prior needs encoders with task heads"),
    ],
)
def test_a_setting_that_does_not_fit_together_is_refused(keys: dict[str, object], encoders: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_event_setting(looked_at(), [small_encoder(hidden=3)] * encoders, config(**keys))


def test_labels_without_an_event_are_refused() -> None:
    with pytest.raises(UserError, match=r"holds 3 windows and no event; label some windows that hold one"):
        make_event_setting(labels_of([[], [], []]), [], config())


def test_an_encoder_of_windows_of_another_length_is_refused() -> None:
    with pytest.raises(UserError, match=r"the encoder reads windows of 105 bars, the labels hold 60"):
        make_event_setting(labels_of([[(0, 30, 36)], []], num_steps=60), [small_encoder(hidden=3)], config())


def test_a_span_detector_is_read_as_maps_and_as_one_hit_in_each_window() -> None:
    setting = make_event_setting(looked_at(), [], config(cv__folds=2))
    settings = replace(QUICK, nets=("span",))
    spans = [replace(one, settings=settings) for one in event_methods(setting) if one.name == "span_nets"]
    fits = fit_event_methods(setting, spans)
    assert list(fits) == ["span_nets", "span_hits"]
    (maps,), (hits,) = fits.values()
    assert len(hits.held.found) <= len(looked_at()) < len(maps.held.found)
    np.testing.assert_array_equal(hits.fold, maps.fold)
    assert isinstance(maps, EventFit)
    assert {type(part.net).__name__ for part in maps.detector.parts} == {"SpanNet"}
    assert {"span_nets", "span_hits"} < set(EVENT_TITLES)


def test_the_span_detector_can_be_left_out() -> None:
    setting = make_event_setting(looked_at(), [], config(finetune__span_baseline=False))
    assert names(setting) == ["detector", "boosted_steps"]


def test_a_span_detector_learns_from_no_window_without_labels() -> None:
    labels = looked_at()
    positives = labels.select(np.unique(labels.window))
    more = UnlabelledWindows(Unlabelled(labels.ohlc, 0.5), "bars", "")
    setting = replace(make_event_setting(positives, [], config(cv__folds=2)), unlabelled=more)
    first, spans = event_methods(setting)
    assert first.unlabelled is not None
    assert spans.unlabelled is None
