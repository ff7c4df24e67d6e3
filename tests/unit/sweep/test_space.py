"""The search space: what is refused, and how it is kept."""

from __future__ import annotations

import pytest

from moola_mlflow.core import FinetuneSweepKeys, PretrainSweepKeys, make_config
from moola_mlflow.core.errors import UserError
from moola_mlflow.sweep.space import Space, trial_config

LR = {"optimizer.lr": {"low": "1e-4", "high": "1e-2", "log": True}}


def space(tree: object, **sweep: object) -> Space:
    keys = FinetuneSweepKeys if sweep.get("stage") == "finetune" else PretrainSweepKeys
    return Space.of(make_config(keys, {"sweep": {"space": tree, **sweep}}, {}))


@pytest.mark.parametrize(
    ("tree", "sweep", "message"),
    [
        ({}, {}, "sweep.space is empty"),
        ({"optimizer.rl": [1]}, {}, "did you mean 'optimizer.lr'?"),
        ({"sweep.n_trials": [1]}, {}, "'sweep.n_trials' cannot be searched"),
        ({"finetune.gamma": [1]}, {}, "'finetune.gamma' cannot be searched.*moola pretrain --help"),
        ({"schedule.warmup_epochs": [1]}, {"stage": "finetune"}, "cannot be searched.*moola finetune --help"),
        ({"optimizer.lr": {"low": 1, "high": 0.1}}, {}, "is empty"),
        ({"optimizer.lr": {"low": 0, "high": 0.1, "log": True}}, {}, "log needs low above 0"),
        ({"optimizer.lr": {"low": 1e-3}}, {}, "give low and high, or choices"),
        ({"optimizer.lr": {"low": -1, "high": 0.1}}, {}, "optimizer.lr at -1.0"),
        ({"encoder.hidden": {"low": 1.5, "high": 4}}, {}, "is a whole number"),
        ({"encoder.name": {"low": 1, "high": 4}}, {}, "is no number"),
        ({"trainer.batch_size": []}, {}, "choices need at least one value"),
        ({"trainer.batch_size": [8, 8]}, {}, "a choice is given twice"),
        ({"objective.mask_ratio": [0.1]}, {}, "changes what val/huber is measured on"),
        ({**LR, "encoder.hidden": {"choices": [4], "when": {"encoder.nam": "x"}}}, {}, "did you mean 'encoder.name'?"),
        ({"encoder.hidden": {"choices": [4], "when": {"encoder.layers": 1}},
          "encoder.layers": {"choices": [1], "when": {"encoder.hidden": 4}}}, {}, "in a circle"),
        (LR, {"enqueue": [{"optimizer.lr": 1.0}]}, "sweep.enqueue: optimizer.lr=1.0 is outside"),
        (LR, {"enqueue": [{"encoder.hidden": 4}]}, "'encoder.hidden' is not searched"),
        ({"trainer.epochs": [1, 2]}, {"budget": "windows", "budget_amount": 10}, "do not search it"),
    ],
)  # fmt: skip
def test_a_space_that_makes_no_sense_is_refused_with_the_cure(
    tree: object, sweep: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        space(tree, **sweep)


@pytest.mark.parametrize("key", ["windows.stride", "objective.family", "bars.sample_seed"])
def test_a_key_that_changes_the_fresh_rules_is_not_searched_by_their_loss(key: str) -> None:
    tree = {"objective": {"name": "rules"}, "sweep": {"objective": "rules/few_shot", "space": {key: ["1"]}}}
    with pytest.raises(UserError, match=f"'{key}' changes what rules/few_shot is measured on"):
        Space.of(make_config(PretrainSweepKeys, tree, {}))
    tree["sweep"]["space"] = {"objective.rules_seed": [0, 1], **LR}
    assert list(Space.of(make_config(PretrainSweepKeys, tree, {})).distributions) == ["objective.rules_seed", *LR]


def test_the_loss_on_fresh_rules_is_searched_downwards_and_needs_the_objective_rules() -> None:
    given = {"sweep": {"objective": "rules/few_shot", "space": LR}}
    with pytest.raises(UserError, match="only encoders trained on rules have it; set objective"):
        make_config(PretrainSweepKeys, given, {})
    assert make_config(PretrainSweepKeys, {"objective": {"name": "rules"}, **given}, {}).sweep.direction == "minimize"


def test_a_space_is_read_back_whole_from_its_text() -> None:
    one = space(
        {**LR, "trainer.batch_size": [16, 32], "encoder.hidden": {"low": 4, "high": 16, "step": 4},
         "finetune.head_lr": {"choices": [None, 0.1], "when": {"trainer.batch_size": 16}}}, stage="finetune"
    )  # fmt: skip
    assert Space.from_json(one.to_json()) == one
    text = {"optimizer.lr": repr(0.1 + 0.2), "trainer.batch_size": "16", "finetune.head_lr": "None", "other": "x"}
    assert one.read(text) == {"optimizer.lr": 0.1 + 0.2, "trainer.batch_size": 16, "finetune.head_lr": None}
    with pytest.raises(UserError, match="no choice"):
        one.read({"trainer.batch_size": "17"})


def test_a_key_is_drawn_after_those_it_depends_on_and_fixed_keys_decide_at_once() -> None:
    one = space({"encoder.hidden": {"choices": [4], "when": {"trainer.batch_size": [16]}},
                 "trainer.batch_size": [16, 32],
                 "encoder.layers": {"choices": [1], "when": {"encoder.name": "other"}}})  # fmt: skip
    assert list(one.distributions).index("trainer.batch_size") < list(one.distributions).index("encoder.hidden")
    assert one.active("encoder.hidden", {"trainer.batch_size": 16})
    assert not one.active("encoder.hidden", {"trainer.batch_size": 32})
    assert not one.active("encoder.layers", {})


def test_a_trials_configuration_is_the_base_with_its_values() -> None:
    base = make_config(FinetuneSweepKeys, {"trainer": {"epochs": 3}, "finetune": {"head_lr": 0.1}}, {})
    config = trial_config(base, {"optimizer.lr": 0.01, "finetune.head_lr": None})
    assert (config.trainer.epochs, config.optimizer.lr, config.finetune.head_lr) == (3, 0.01, None)
    config = trial_config(PretrainSweepKeys(), {"objective.mask_strategy": "patch"})
    assert config.objective.mask_ratio == 0.4  # the strategy's own, not the base's


def test_a_grid_needs_countable_keys() -> None:
    with pytest.raises(UserError, match=r"sweep.sampler=grid: optimizer.lr needs choices"):
        space(LR).grid()


def test_a_space_of_few_points_counts_them_and_any_other_does_not() -> None:
    steps = {"encoder.dropout": {"low": 0.0, "high": 0.4, "step": 0.1}, "encoder.hidden": {"low": 4, "high": 8}}
    points = space(steps).points()
    assert points is not None
    assert len(points) == 25
    assert space(steps).points(24) is None
    assert space({**steps, **LR}).points() is None
    assert space({"encoder.hidden": {"low": 1, "high": 60_000}}).points() is None
    assert space({"encoder.hidden": {"low": 1, "high": 64, "log": True}}).points() is None


@pytest.mark.parametrize(
    ("wider", "expected"),
    [
        ({"low": 4, "high": 32, "step": 4}, True),
        ({"low": 4, "high": 16, "step": 4}, True),
        ({"low": 2, "high": 16, "step": 2}, False),
        ({"low": 2, "high": 18, "step": 4}, False),
        ({"low": 8, "high": 32, "step": 4}, False),
        ({"choices": [4, 8, 12, 16, 20]}, False),
    ],
)
def test_a_range_of_numbers_may_become_wider_if_it_keeps_every_value(wider: dict, expected: bool) -> None:
    then = space({**LR, "encoder.hidden": {"low": 4, "high": 16, "step": 4}})
    assert space({**LR, "encoder.hidden": wider}).widens(then) is expected
    assert not space({"encoder.hidden": wider}).widens(then)
