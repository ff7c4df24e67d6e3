"""Pictures of cross-validation show the numbers they are given: every figure is read back from its axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from moola_mlflow.evaluation.bootstrap import Interval
from moola_mlflow.evaluation.metrics import ece
from moola_mlflow.reports.plots.finetuning import (
    confusion_figure,
    forest_figure,
    pointer_figure,
    recall_figure,
    reliability_figure,
)

NOWHERE = Interval(np.nan, np.nan, np.nan)
LONG = "hand-written rule + logistic regression on what followed the surge, with_a_name_of_no_spaces_" + "x" * 60


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def bars(ax: Axes) -> dict[float, float]:
    """Height of each bar of a histogram by its middle, empty ones left out."""
    drawn = [patch for patch in ax.patches if isinstance(patch, Rectangle) and patch.get_height() > 0]
    return {round(bar.get_x() + bar.get_width() / 2, 3): round(bar.get_height(), 3) for bar in drawn}


def draw(figure: Figure, tmp_path: Path) -> None:
    """Lay the figure out as for a file: a text that cannot be placed is a warning, and so a failure."""
    figure.savefig(tmp_path / "figure.png", dpi=40)


def test_confusion_shows_mean_counts_and_shares_of_the_labelled_class() -> None:
    label = np.array([0, 0, 0, 0, 1, 1])
    guess = np.array([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0]])
    ax = confusion_figure(label, guess, ["calm", "wild"]).axes[0]
    assert texts(ax) == ["2.5\n62%", "1.5\n38%", "0.5\n25%", "1.5\n75%"]
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), [[0.625, 0.375], [0.25, 0.75]])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["calm\n(4)", "wild\n(2)"]


def test_a_class_without_windows_has_no_share() -> None:
    figure = confusion_figure(np.zeros(3, int), np.zeros((1, 3), int), ["calm", "wild"])
    assert texts(figure.axes[0])[2:] == ["0\n–", "0\n–"]


def test_reliability_has_one_point_a_bin_of_equally_many_windows() -> None:
    confidence = np.array([0.55, 0.65, 0.75, 0.85, 0.95, 0.95])
    probability = np.stack([confidence, 1 - confidence], 1)[None]
    label = np.array([0, 1, 0, 0, 0, 1])
    ax = reliability_figure(label, probability, np.full((1, 6, 2), 0.5), bins=3).axes[0]
    _, before, after = ax.get_lines()
    np.testing.assert_allclose(before.get_xydata(), [[0.6, 0.5], [0.8, 1.0], [0.95, 0.5]])
    np.testing.assert_allclose(after.get_xydata(), [[0.5, 4 / 6]])
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()[1:]] == [
        f"before temperature: ECE {(0.1 + 0.2 + 0.45) / 3:.3f}",
        f"after temperature: ECE {4 / 6 - 0.5:.3f}",
    ]


def test_the_error_in_the_legend_is_the_mean_over_repeats() -> None:
    rng = np.random.default_rng(0)
    label, probability = rng.integers(0, 3, 50), rng.dirichlet(np.ones(3), (4, 50))
    ax = reliability_figure(label, probability, probability).axes[0]
    expected = np.mean([ece(label, one) for one in probability])
    assert f"ECE {expected:.3f}" in str(ax.get_lines()[1].get_label())


def test_windows_without_a_probability_are_left_out_of_reliability() -> None:
    rng = np.random.default_rng(0)
    label, probability = rng.integers(0, 2, 40), rng.dirichlet(np.ones(2), (2, 40))
    gaps, shorter = probability.copy(), label[:30]
    gaps[:, 30:] = np.nan
    nothing = np.full_like(gaps, np.nan)
    ax = reliability_figure(label, gaps, nothing).axes[0]
    whole = reliability_figure(shorter, probability[:, :30], probability[:, :30]).axes[0]
    np.testing.assert_allclose(ax.get_lines()[1].get_xydata(), whole.get_lines()[1].get_xydata())
    assert ax.get_lines()[2].get_label() == "after temperature: undefined"


def test_pointers_show_errors_in_windows_and_the_share_within_three_and_five_bars() -> None:
    span = np.array([[30, 39], [40, 45], [50, 59], [60, 69]])
    error = np.array([[0, 0], [3, 3], [-4, -6], [200, 204]])  # centres off by 0, 3, -5 and 202, lengths by -2 and 4
    centre_ax, length_ax = pointer_figure(span, np.stack([span + error, span])).axes
    assert bars(centre_ax) == {0: 2.5, 3: 0.5, -5: 0.5, 40: 0.5}
    assert bars(length_ax) == {0: 3.0, -2: 0.5, 4: 0.5}
    lines = {float(np.asarray(line.get_xdata())[0]): str(line.get_label()) for line in centre_ax.get_lines()}
    assert set(lines) == {0, -3, 3, -5, 5}
    assert (lines[3], lines[5]) == ("within 3 bars: 75%", "within 5 bars: 88%")
    assert "40 or more" in centre_ax.get_xlabel()
    assert "outermost" not in length_ax.get_xlabel()
    assert "mean error +25.0, mean absolute error 26.2" in centre_ax.get_title()


def test_an_error_of_half_a_bar_leans_to_neither_side() -> None:
    span = np.array([[30, 39]])
    assert bars(pointer_figure(span, span[None] + [0, 1]).axes[0]) == {0: 0.5, 1: 0.5}


def test_windows_without_a_span_are_left_out_of_pointers() -> None:
    span = np.array([[30.0, 39.0], [40.0, 45.0]])
    predicted = np.stack([span, np.full((2, 2), np.nan)])
    assert bars(pointer_figure(span, predicted).axes[0]) == {0: 1.0}
    assert pointer_figure(span, predicted[1:]).axes[0].get_title() == "centre: undefined"


def test_recall_shows_intervals_and_marks_a_collapsed_class() -> None:
    recall = {"calm": Interval(0.6, 0.5, 0.7), "wild": Interval(0.2, 0.1, 0.35), "absent": NOWHERE}
    ax = recall_figure(recall, floor=0.3).axes[0]
    calm, wild = (patch for patch in ax.patches if isinstance(patch, Rectangle))
    assert (calm.get_width(), wild.get_width()) == (0.6, 0.2)
    assert calm.get_facecolor() != wild.get_facecolor()
    whiskers = [np.asarray(line.get_xdata()).tolist() for line in ax.get_lines()]
    assert whiskers == [[0.5, 0.7], [0.1, 0.35], [0.3, 0.3]]
    assert texts(ax) == ["0.60", "0.20", "no windows of this class"]
    assert [text.get_text() for text in ax.get_yticklabels()] == list(recall)
    assert ax.yaxis_inverted(), "the first class stands on top"


def test_differences_show_a_row_each_and_tell_gain_from_no_gain() -> None:
    rows = [
        ("scratch", Interval(0.08, 0.02, 0.14)),
        ("random", Interval(0.04, -0.01, 0.09)),
        ("rule", Interval(-0.3, -0.4, -0.2)),
        ("bare", Interval(0.1, np.nan, np.nan)),
        ("nothing", NOWHERE),
    ]
    ax = forest_figure(rows, "Joint@3", "difference").axes[0]
    zero, *lines = ax.get_lines()
    assert np.asarray(zero.get_xdata()).tolist() == [0, 0]
    drawn = [(np.asarray(line.get_xdata()).tolist(), float(np.asarray(line.get_ydata())[0])) for line in lines]
    assert drawn == [
        ([0.08], 0), ([0.02, 0.14], 0), ([0.04], 1), ([-0.01, 0.09], 1), ([-0.3], 2), ([-0.4, -0.2], 2), ([0.1], 3),
    ]  # fmt: skip
    gain, no_gain, loss = (lines[i].get_color() for i in (0, 2, 4))
    assert len({gain, no_gain, loss}) == 3
    assert lines[6].get_color() == no_gain, "without an interval nothing is claimed"
    assert texts(ax)[0] == "+0.080  [+0.020, +0.140]"
    assert texts(ax)[3:] == ["+0.100", "undefined"]
    low, high = ax.get_xlim()
    assert low < -0.4
    assert high > 0.14


@pytest.mark.parametrize("rows", [[], [("nothing", NOWHERE)], [("equal", Interval(0.0, 0.0, 0.0))]])
def test_differences_of_nothing_still_make_a_picture(rows: list[tuple[str, Interval]], tmp_path: Path) -> None:
    draw(forest_figure(rows, "Joint@3", "difference"), tmp_path)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_long_names_and_many_classes_fit_a_file(num_classes: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes = [f"{LONG[: 10 + 15 * c]}{c}" for c in range(num_classes)]
    label = rng.integers(0, num_classes, 30)
    probability = rng.dirichlet(np.ones(num_classes), (2, 30))
    draw(confusion_figure(label, probability.argmax(2), classes), tmp_path)
    draw(reliability_figure(label, probability, probability), tmp_path)
    draw(recall_figure({name: Interval(0.5, 0.4, 0.6) for name in classes}), tmp_path)
    draw(forest_figure([(name, Interval(0.5, 0.4, 0.6)) for name in [*classes, LONG]], "F1", "difference"), tmp_path)
