"""The headline of a fine-tuning: one sentence that claims what its intervals allow, path features included."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from small_evidence import LABELS, SKILL, evidence

from moola_mlflow.evaluation.bootstrap import Interval
from moola_mlflow.evaluation.evidence import DETECTOR, TITLES, Evidence


@pytest.fixture(scope="module")
def weighed() -> Evidence:
    return evidence(**SKILL)


@pytest.mark.parametrize(
    ("detector", "baseline", "start", "end"),
    [
        (1.0, 0.0, "Gain: +", "lies above 0."),
        (0.0, 1.0, "Loss: -", "lies below 0 (best of 2, chosen on these windows)."),
        (0.5, 0.5, "No gain: ", "covers 0."),
    ],
)
def test_the_headline_claims_what_the_interval_against_the_best_baseline_allows(
    detector: float, baseline: float, start: str, end: str
) -> None:
    found = evidence(detector=detector, scratch=baseline, path_features=0.0, rule=1.0)
    gain = found.differences[found.best_baseline()]["joint_success_at_3"]
    shown = f"{gain.mean:+.3f} [{gain.lo:+.3f}, {gain.hi:+.3f}]"
    assert found.headline().startswith(start)
    assert found.headline().endswith(end)
    assert f"{shown} Joint@3 against the best baseline ({TITLES[found.best_baseline()]})" in found.headline()
    assert " F1 against the best" in found.headline()
    assert ("Joint@3 against path features alone" in found.headline()) == (found.best_baseline() != "path_features")


def test_the_headline_ends_with_the_baselines_that_a_quick_comparison_left_out(weighed: Evidence) -> None:
    quick = replace(weighed, left_out=("scratch", "random_encoder"))
    assert quick.headline() == f"{weighed.headline()} Not compared with scratch, random_encoder (cv.baselines=quick)."
    assert quick.gate_figures(False)["left_out"] == ["scratch", "random_encoder"]


CLEAR, OPEN, BELOW = Interval(0.05, 0.01, 0.09), Interval(0.06, -0.01, 0.13), Interval(-0.05, -0.09, -0.01)
NONE = Interval(0.05, math.nan, math.nan)


def with_gains(weighed: Evidence, best: str, **gains: Interval) -> Evidence:
    """Evidence whose Joint@3 lies so far beyond each baseline, ``best`` being the best of them in both scores."""
    table = {name: dict(weighed.table[name]) for name in (DETECTOR, *gains)}
    for metric in ("joint_success_at_3", "f1_macro"):
        table[best][metric] = Interval(0.99, 0.98, 1.0)
    differences = {name: {"joint_success_at_3": gain, "f1_macro": CLEAR} for name, gain in gains.items()}
    return replace(weighed, table=table, differences=differences)


@pytest.mark.parametrize(
    ("gains", "start", "end"),
    [
        ({"path_features": CLEAR}, "Gain: +0.050 [+0.010, +0.090] Joint@3", "of the first lies above 0."),
        ({"path_features": OPEN}, "No gain: +0.060 [-0.010, +0.130] Joint@3", "of the first covers 0."),
        ({"path_features": BELOW}, "Loss: ", "(best of 1, chosen on these windows)."),
        ({"scratch": CLEAR, "path_features": CLEAR}, "Gain: ", "each 95 % interval of Joint@3 lies above 0."),
        # Sure of the best baseline and not of path features, whose interval is wider: no gain is claimed.
        ({"scratch": CLEAR, "path_features": OPEN}, "No gain: ", "of the last covers 0."),
        ({"scratch": OPEN, "path_features": CLEAR}, "No gain: ", "of the first covers 0."),
        ({"scratch": BELOW, "path_features": CLEAR}, "Loss: ", "(best of 2, chosen on these windows)."),
        ({"scratch": NONE, "path_features": NONE}, "No gain: ", "windows that all overlap have no interval."),
    ],
)
def test_the_headline_says_in_words_and_figures_how_the_detector_stands_to_path_features(
    weighed: Evidence, gains: dict[str, Interval], start: str, end: str
) -> None:
    said = with_gains(weighed, next(iter(gains)), **gains).headline()
    assert said.startswith(start)
    assert said.endswith(end)
    word = {CLEAR: "gain", OPEN: "no gain", BELOW: "loss", NONE: "no gain"}[gains["path_features"]]
    figures = f"{gains['path_features'].mean:+.3f} [{gains['path_features'].lo:+.3f}, "
    if "scratch" in gains:
        assert f"{figures}{gains['path_features'].hi:+.3f}] Joint@3 against path features alone ({word})" in said
    else:
        assert said.lower().startswith(f"{word}: {figures}")


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ({"path_features": OPEN}, "Joint@3 against the best baseline (path features alone, same head: no gain)"),
        ({"random_encoder": CLEAR, "path_features": OPEN}, "Joint@3 against path features alone (no gain)."),
        ({"scratch": CLEAR}, "it reads path features alone, so the gain of an encoder over them is not tested."),
    ],
)
def test_without_pre_training_the_headline_says_so_first_and_how_it_stands_to_path_features(
    weighed: Evidence, gains: dict[str, Interval], said: str
) -> None:
    headline = replace(with_gains(weighed, next(iter(gains)), **gains), pretrained=False).headline()
    assert headline.startswith("No pre-training in this detector: +")
    assert said in headline


def test_networks_that_read_an_encoding_in_the_place_of_path_features_are_called_so(weighed: Evidence) -> None:
    gains = with_gains(weighed, "scratch", scratch=CLEAR)
    assert f"best baseline ({TITLES['scratch']})" in gains.headline()
    headline = replace(gains, pretrained=False).headline()
    assert "against the best baseline (encoding from scratch, not path features), " in headline
    assert "F1 against the best (encoding from scratch, not path features); it reads path features alone" in headline


def test_a_stronger_baseline_than_path_features_is_the_one_in_the_headline() -> None:
    found = evidence(detector=0.7, scratch=1.0, path_features=0.0, rule=1.0)
    assert found.best_baseline() == "scratch"
    assert found.headline().startswith("Loss: ")
    assert "best of 2," in found.headline()
    people = replace(found, labels=replace(LABELS, weak=False))  # the rule does not know how people label: it competes
    assert "best of 3," in people.headline()


@pytest.mark.parametrize(
    ("gain", "start"), [((0.1, 0.0, 0.2), "No gain"), ((-0.1, -0.2, 0.0), "No gain"), ((0.1, 1e-9, 0.2), "Gain")]
)
def test_an_interval_that_ends_at_0_is_no_gain(weighed: Evidence, gain: tuple[float, ...], start: str) -> None:
    assert weighed.best_baseline() is not None
    best = weighed.best_baseline()
    edge = {**weighed.differences, best: {**weighed.differences[best], "joint_success_at_3": Interval(*gain)}}
    edge |= {"path_features": edge[best]}
    assert replace(weighed, differences=edge).headline().startswith(start)
