"""Pictures of a training count epochs from 1, as the console and the notes do."""

from __future__ import annotations

from moola_mlflow.reports.plots.compare import overlay_figure
from moola_mlflow.reports.plots.training import curves_figure, lr_figure

ROW = {"train/loss": 0.3, "val/loss": 0.2, "val/loss_profiled": 0.2, "val/huber": 0.1, "val/skill": 0.4, "lr": 1e-3}


def test_curves_begin_at_epoch_1_and_mark_the_best_epoch_as_the_note_counts_it() -> None:
    for ax in curves_figure([ROW] * 3, best_epoch=1).axes:
        *curves, best = ax.get_lines()
        assert [list(curve.get_xdata()) for curve in curves] == [[1, 2, 3]] * len(curves)
        assert list(best.get_xdata()) == [2, 2]
        assert ax.get_xlabel() == "epoch"
    (ax,) = lr_figure([ROW] * 3).axes
    assert list(ax.get_lines()[0].get_xdata()) == [1, 2, 3]


def test_curves_of_several_runs_begin_at_epoch_1_too() -> None:
    (ax,) = overlay_figure(["A"], {"loss": [[{0: 0.5, 1: 0.4}]]}, "loss").axes
    assert list(ax.get_lines()[0].get_xdata()) == [1, 2]
