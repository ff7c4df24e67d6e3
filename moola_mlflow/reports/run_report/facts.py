"""Read the figures of a pre-training and of a fine-tuning from their runs; a figure that is missing is None."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moola_mlflow.core import current_name
from moola_mlflow.evaluation import NETWORKS, PATH_FEATURES, GainClass, Interval, classify_gain, published_levels
from moola_mlflow.tracking import Artifacts, Metrics, RunRecord, Tags

FINISHED = "FINISHED"
EVENT = "event"
"""Kind of the fine-tuning of an event detector."""


@dataclass(frozen=True)
class GateRow:
    """A gate as the run logged it."""

    name: str
    value: float | None
    relation: str
    limit: float
    passed: bool

    @property
    def margin(self) -> float | None:
        """By how much it is met (positive) or missed (negative); None without a value."""
        if self.value is None:
            return None
        if self.relation == "=":
            return -abs(self.value - self.limit) or 0.0
        return self.limit - self.value if self.relation == "<" else self.value - self.limit


def gate_rows(logged: Any) -> list[GateRow]:
    """Return the rows of ``gates.json``, without those of another shape."""
    out = []
    for row in logged if isinstance(logged, list) else []:
        try:
            relation, limit = str(row["needed"]).split()
            value = None if row["value"] is None else float(row["value"])
            out.append(GateRow(str(row["gate"]), value, relation, float(limit), bool(row["passed"])))
        except (KeyError, TypeError, ValueError):
            continue
    return out


@dataclass(frozen=True)
class Pretrained:
    """The figures of a pre-training."""

    status: str
    objective: str = ""
    identity: bool = False
    """Whether its encoder saw what it had to reconstruct."""
    done: bool = False
    """Whether the run holds its results."""
    epochs_planned: int | None = None
    epochs_run: int = 0
    best_epoch: int | None = None
    """From 0."""
    best_val_loss: float | None = None
    best_val_mae: float | None = None
    test_skill: float | None = None
    val_skill: float | None = None
    test_huber: float | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)
    """Huber of each baseline on the test part."""
    probe: Mapping[str, float] = field(default_factory=dict)
    gates: Sequence[GateRow] = ()
    sample: bool = False
    """Whether its bars are the embedded synthetic sample."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its configuration, section by section."""

    @classmethod
    def of(cls, run: RunRecord) -> Pretrained:
        """Read a run. A figure that it does not hold stays None."""
        results, card, skill = (
            run.json(name) for name in (Artifacts.TRAINING_RESULTS, Artifacts.ENCODER_CARD, Artifacts.SKILL)
        )
        results, card, skill = (x if isinstance(x, dict) else {} for x in (results, card, skill))
        objective = run.config.get("objective") or {}
        # Version 0.1 wrote another prefix.
        hubers: dict[str, Any] = next((value for key, value in skill.items() if key.endswith("_huber")), {})
        identity = run.tags.get(Tags.IDENTITY) == "true"
        metrics = run.metrics
        done = bool(results) and Metrics.TEST_HUBER in metrics
        val = results.get("val_metrics") or {}
        curve = results.get("history") or run.history(Metrics.VAL_HUBER)
        trainer = run.config.get("trainer") or {}
        return cls(
            status=run.status,
            objective=current_name(str(objective.get("name") or run.params.get("objective.name") or "")),
            identity=identity,
            done=done,
            epochs_planned=trainer.get("epochs"),
            epochs_run=len(curve),
            best_epoch=results.get("best_epoch"),
            best_val_loss=number(results.get("best_val_loss")),
            best_val_mae=number(val.get("val_mae")),
            test_skill=number(metrics.get(Metrics.TEST_SKILL)),
            val_skill=number(val.get("val_skill", card.get("val_skill"))),
            test_huber=number(metrics.get(Metrics.TEST_HUBER)),
            baselines={k: float(v) for k, v in (hubers.get("test") or {}).items()},
            probe={k: v for k in ("r2", "r2_random", "r2_inputs", "r2_gain", "r2_path")
                   if (v := number(metrics.get(f"{Metrics.PROBE}{k}"))) is not None},
            gates=gate_rows(run.json(Artifacts.GATES)) if done else (),
            sample=(run.config.get("bars") or {}).get("path") == "sample",
            config=run.config,
        )  # fmt: skip

    def levels(self) -> dict[str, str]:
        """Return the published levels. Only the published objective has them."""
        if not self.identity or self.best_val_loss is None or self.best_val_mae is None:
            return {}
        return published_levels(self.best_val_loss, self.best_val_mae)

    def gate(self, name: str) -> GateRow | None:
        """Return a gate by name."""
        return next((gate for gate in self.gates if gate.name == name), None)


@dataclass(frozen=True)
class Tuned:
    """The figures of a fine-tuning."""

    run_id: str
    name: str
    status: str
    kind: str = ""
    """frozen, unfrozen, price_path (it read no encoder) or event; empty if its card is missing."""
    scores: Mapping[str, Interval] = field(default_factory=dict)
    std: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    best: Mapping[str, str | None] = field(default_factory=dict)
    """The best baseline without pre-training, by metric."""
    headline: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Labelled windows of each class."""
    num_groups: int | None = None
    ece_before: float | None = None
    ece_if_calibrated: float | None = None
    weak: bool = False
    warnings: str = ""
    gates: Sequence[GateRow] = ()
    others: int = 0
    """Number of encoders that it reads in addition to the reported one."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its configuration, section by section."""

    @property
    def done(self) -> bool:
        """Whether the run holds its scores."""
        return bool(self.scores)

    @classmethod
    def of(cls, run: RunRecord) -> Tuned:
        """Read a run. A figure that it does not hold stays empty."""
        summary, card = run.json(Artifacts.CV_SUMMARY), run.json(Artifacts.DETECTOR_CARD)
        summary, card = (x if isinstance(x, dict) else {} for x in (summary, card))
        average = summary.get("avg_metrics") or {}
        frozen = (run.config.get("finetune") or {}).get("freeze")
        is_event = summary.get("kind") == EVENT
        kind = (
            EVENT
            if is_event
            else current_name(str(card.get("fitted") or ("" if frozen is None else "frozen" if frozen else "unfrozen")))
        )
        labels = card.get("labels") or {}
        return cls(
            run_id=run.id,
            name=run.name,
            status=run.status,
            kind=kind,
            scores={name: interval(row) for name, row in average.items()},
            std={name: number(row.get("std")) or math.nan for name, row in average.items()},
            baselines=_table(summary.get("baselines")),
            differences=_table(summary.get("differences")),
            best={"map": summary.get("best_baseline")} if is_event else summary.get("best_baseline") or {},
            headline=str(summary.get("headline") or ""),
            counts=labels.get("counts") or {},
            num_groups=summary.get("num_groups"),
            ece_before=number(summary.get("ece_before_temperature")),
            ece_if_calibrated=number(summary.get("ece_if_calibrated")),
            weak=run.tags.get(Tags.WEAK_LABELS) == "true",
            warnings=run.tags.get(Tags.WARNINGS, ""),
            gates=gate_rows(run.json(Artifacts.GATES)),
            others=max(len(card.get("encoders") or []) - 1, 0),
            config=run.config,
        )

    def least_sure(self) -> tuple[str, Interval] | None:
        """Return the network without pre-training with the least sure Joint@3 gain over it, and that gain."""
        gains = {n: self.differences[n]["joint_success_at_3"] for n in NETWORKS if n in self.differences}
        name = min(gains, key=lambda n: gains[n].lo, default=None)
        return None if name is None else (name, gains[name])

    def against_best(self) -> tuple[str, Interval] | None:
        """Return the best baseline without pre-training and the difference to it, in mAP of events or Joint@3."""
        metric = "map" if self.kind == EVENT else "joint_success_at_3"
        name = self.best.get(metric)
        if name is None or name not in self.differences:
            return None
        return name, self.differences[name][metric]

    def claim(self) -> GainClass | None:
        """Return what its headline claims about the encoder; None without a baseline."""
        best, alone = self.against_best(), self.differences.get(PATH_FEATURES)
        if best is None:
            return None
        if self.kind == EVENT:
            return classify_gain(best[1])
        return classify_gain(best[1], best[1] if alone is None else alone["joint_success_at_3"])

    def collapsed(self) -> list[str]:
        """Return the classes whose recall misses its gate."""
        return [g.name.removeprefix("recall/") for g in self.gates if g.name.startswith("recall/") and not g.passed]


def kind_of(run: RunRecord) -> str:
    """Return which kind of run this is, in words for a message."""
    return f"a {run.stage} run" if run.stage else "not a run of this project (it has no tag moola.stage)"


def number(value: Any) -> float | None:
    """Return a finite number, else None."""
    there = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if there else None


def interval(row: Mapping[str, Any]) -> Interval:
    """Return an interval from JSON, where null is NaN."""
    ends = (number(row.get(key)) for key in ("mean", "lo", "hi"))
    return Interval(*(math.nan if end is None else end for end in ends))


def _table(rows: Mapping[str, Mapping[str, Mapping[str, Any]]] | None) -> dict[str, dict[str, Interval]]:
    return {name: {metric: interval(i) for metric, i in row.items()} for name, row in (rows or {}).items()}
