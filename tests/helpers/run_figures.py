"""Figures of a pre-training and of a fine-tuning, as a report reads them from runs."""

from __future__ import annotations

from dataclasses import replace

from moola_mlflow.evaluation.bootstrap import Interval
from moola_mlflow.reports.run_report.facts import GateRow, Pretrained, Tuned

MISSED_PROBE = GateRow("probe_r2_gain", 0.004, ">", 0.067, False)
DONE = Pretrained(
    "FINISHED", "masked", done=True, epochs_planned=5, epochs_run=5, best_epoch=2, best_val_loss=-4.2,
    best_val_mae=0.001, test_skill=0.4, val_skill=0.4, test_huber=0.06, baselines={"mean": 0.2, "ridge": 0.1},
    probe={"r2": 0.2, "r2_random": 0.05, "r2_inputs": 0.1, "r2_gain": 0.15},
    gates=(GateRow("probe_r2_gain", 0.15, ">", 0.067, True), GateRow("skill", 0.4, ">", 0.1, True)),
)  # fmt: skip


def tuned(network: tuple[float, float], best: tuple[float, float], **changed: object) -> Tuned:
    """A fine-tuning whose Joint@3 lies so far beyond the networks and beyond path features: (lo, hi) each."""
    over, beyond = (Interval(sum(ends) / 2, *ends) for ends in (network, best))
    clear = Interval(0.5, 0.45, 0.55)
    base = Tuned(
        "id", "a name", "FINISHED", "frozen", scores={"hit_at_3": clear, "recall_a": Interval(0.1, 0.0, 0.2)},
        baselines={"majority": {"hit_at_3": Interval(0.1, 0.05, 0.15)}},
        differences={"scratch": {"joint_success_at_3": over}, "random_encoder": {"joint_success_at_3": clear},
                     "path_features": {"joint_success_at_3": beyond}},
        best={"joint_success_at_3": "path_features"}, headline="HEADLINE", num_groups=60,
    )  # fmt: skip
    return replace(base, **changed)  # type: ignore[arg-type]
