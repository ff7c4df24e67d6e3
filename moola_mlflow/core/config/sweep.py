"""Section ``sweep``: what is searched, how, and for how long."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from moola_mlflow.core.config.base import Section, from_text
from moola_mlflow.core.names import Metrics


class Dimension(Section):
    """The values of one searched key: ``low`` and ``high``, or ``choices``; a YAML list is short for choices."""

    low: float | None = None
    """Lowest value."""
    high: float | None = None
    """Highest value."""
    log: bool = False
    """Draw on a logarithmic scale."""
    step: float | None = Field(None, gt=0)
    """Distance between two values; 1 for whole numbers."""
    choices: tuple[bool | int | float | str | None, ...] | None = None
    """The values to try."""
    when: dict[str, Any] = Field({})
    """Other keys, each with the value or list of values at which this key is searched."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"choices": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _not_empty(self) -> Dimension:
        if self.choices is not None:
            if not self.choices or self.low is not None or self.high is not None or self.log or self.step:
                raise ValueError("choices need at least one value, and neither low, high, log nor step beside them")
            if len({repr(choice) for choice in self.choices}) < len(self.choices):
                raise ValueError("a choice is given twice")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        if self.low > self.high:
            raise ValueError(f"the range from {self.low:g} to {self.high:g} is empty; low must not be above high")
        if self.log and (self.low <= 0 or self.step):
            raise ValueError(f"log needs low above 0 and no step; low is {self.low:g}, step {self.step}")
        return self


class SweepConfig(Section):
    """What an Optuna search varies, how, and for how long."""

    stage: Literal["pretrain", "finetune"] = "pretrain"
    """The command whose keys are searched: each trial is one pretrain or one finetune."""
    objective: Literal["auto", "val/huber", "probe/r2_gain", "rules/few_shot", "inner/joint_success_at_3"] = "auto"
    """Metric that the search improves; auto: val/huber for pretrain, Joint@3 inside the folds for finetune. Choose
    rules/few_shot for trials of objective.name=rules."""
    space: dict[str, Dimension] = Field({})
    """The searched keys: dotted names, each with its values."""
    enqueue: tuple[dict[str, Any], ...] = ()
    """Points to try first: dotted keys with their values; keys that are left out are drawn."""
    n_trials: int = Field(20, ge=1, lt=2**20)
    """Trials that must end complete or pruned, counted over all workers of the study."""
    workers: int = Field(1, ge=1, le=256)
    """Worker processes on this machine."""
    study: str = Field("", max_length=200)
    """Name under which several commands share one sweep, here or on other machines; not set: a sweep of its own."""
    storage: str = ""
    """Database in which workers coordinate (sqlite:///file or postgresql://...); not set: beside the tracking store."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe: Optuna's TPE with constant liar; random; grid: every combination, in an order drawn from the seed."""
    seed: int = Field(17, ge=0, lt=2**32)
    """Seed of the drawn points."""
    startup_trials: int = Field(8, ge=0)
    """Trials drawn at random before tpe uses their results."""
    pruner: Literal["percentile", "median", "hyperband", "none"] = "percentile"
    """percentile: stop a trial that at some epoch is not among the best prune_keep of the complete trials; median: the
    same with one half; hyperband; none."""
    prune_keep: float = Field(0.25, gt=0, lt=1)
    """Share of the complete trials that a trial must be among to continue (pruner percentile)."""
    prune_after: int = Field(3, ge=0)
    """Epochs before which no trial is pruned; folds for finetune."""
    prune_startup: int = Field(3, ge=0)
    """Complete trials before which percentile and median prune nothing."""
    budget: Literal["epochs", "windows", "seconds"] = "epochs"
    """What every trial gets the same amount of: epochs (trainer.epochs), windows or seconds (budget_amount)."""
    budget_amount: float | None = Field(None, gt=0)
    """Training windows or seconds of each trial; on the CPU, seconds of CPU time."""
    heartbeat_s: int = Field(10, ge=1, le=3600)
    """Seconds between two heartbeats of a running trial."""
    grace_s: int = Field(60, ge=1, le=86400)
    """Seconds without a heartbeat after which a trial counts as dead and is tried again."""
    max_retries: int = Field(3, ge=0)
    """How often a trial is tried again if its worker dies; then a new trial takes its place."""
    max_failures: int = Field(10, ge=0)
    """Trials that may fail with an error before the sweep gives up; a new trial replaces each."""
    register_best: bool = False
    """Whether the best trial's encoder is registered as candidate (pretrain only)."""

    @field_validator("space", "enqueue", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return from_text(value, "{optimizer.lr: {low: 1e-4, high: 1e-2, log: true}}")

    @model_validator(mode="after")
    def _consistent(self) -> SweepConfig:
        inner = self.objective == Metrics.INNER_JOINT_AT_3
        if self.objective != "auto" and inner != (self.stage == "finetune"):
            raise ValueError(f"objective {self.objective} is not one of stage {self.stage}; set sweep.objective=auto")
        if (self.budget == "epochs") != (self.budget_amount is None):
            raise ValueError(
                f"budget {self.budget} with budget_amount {self.budget_amount}: windows and seconds need "
                "an amount, epochs take trainer.epochs"
            )
        if self.stage == "finetune" and (self.budget != "epochs" or self.register_best):
            raise ValueError(
                "stage finetune has neither another budget nor register_best: its winner is registered "
                "by finetune -P config=best_config.yaml, with its evidence"
            )
        if self.grace_s <= self.heartbeat_s:
            raise ValueError(f"grace_s {self.grace_s} must be above heartbeat_s {self.heartbeat_s}")
        return self

    @property
    def target(self) -> str:
        """The metric that the search improves."""
        return (
            {"pretrain": Metrics.VAL_HUBER, "finetune": Metrics.INNER_JOINT_AT_3}[self.stage]
            if self.objective == "auto"
            else self.objective
        )

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Which way is better."""
        return "minimize" if self.target in (Metrics.VAL_HUBER, Metrics.FEW_SHOT) else "maximize"
