"""The section of sweeps: what is searched, how, and for how long."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from moola_mlflow.core.config.base import Section, from_text
from moola_mlflow.core.names import Metrics


class Dimension(Section):
    """One searched key: ``low`` and ``high``, or ``choices``; a YAML list is short for choices."""

    low: float | None = None
    """Least value."""
    high: float | None = None
    """Largest value."""
    log: bool = False
    """Draw on a logarithmic scale."""
    step: float | None = Field(None, gt=0)
    """Distance between two values; whole numbers have 1."""
    choices: tuple[bool | int | float | str | None, ...] | None = None
    """The values themselves."""
    when: dict[str, Any] = Field({})
    """Other keys and the value (or list of values) that they must have for this one to be searched."""

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
    stage: Literal["pretrain", "finetune"] = "pretrain"
    """What a trial trains."""
    objective: Literal["auto", "val/huber", "probe/r2_gain", "inner/joint_success_at_3"] = "auto"
    """What the search improves, never the learned-sigma loss; auto = val/huber, or Joint@3 inside folds."""
    space: dict[str, Dimension] = Field({})
    """Searched keys by dotted name."""
    enqueue: tuple[dict[str, Any], ...] = ()
    """Points that are tried first: dotted keys with their values; keys left out are drawn."""
    n_trials: int = Field(20, ge=1, lt=2**20)
    """Trials that shall end complete or pruned, counted over everyone who works on the study."""
    workers: int = Field(1, ge=1, le=256)
    """Processes on this machine."""
    study: str = Field("", max_length=200)
    """Name under which several commands, here or on other machines, share one sweep; not set: one of its own."""
    storage: str = ""
    """Where workers coordinate (sqlite:///file or postgresql://...); not set: beside the tracking store."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """tpe: Optuna's, with constant liar; random; grid: every combination, in an order drawn from the seed."""
    seed: int = Field(17, ge=0, lt=2**32)
    """Seed of the drawn points."""
    startup_trials: int = Field(8, ge=0)
    """Trials drawn at random before tpe learns from them."""
    pruner: Literal["percentile", "median", "hyperband", "none"] = "percentile"
    """percentile: stop a trial that is not among the best prune_keep of the complete ones at its epoch; median: the
    same with one half; hyperband; none."""
    prune_keep: float = Field(0.25, gt=0, lt=1)
    """Share of the complete trials, the best of them, among which the percentile pruner lets a trial go on."""
    prune_after: int = Field(3, ge=0)
    """Epochs (folds, for finetune) that no trial is pruned before."""
    prune_startup: int = Field(3, ge=0)
    """Complete trials that there must be before percentile or median prunes."""
    budget: Literal["epochs", "windows", "seconds"] = "epochs"
    """What every trial gets equally: trainer.epochs, or budget_amount of windows trained on or of seconds."""
    budget_amount: float | None = Field(None, gt=0)
    """Windows or seconds of training a trial gets (seconds of CPU time where it trains on the CPU)."""
    heartbeat_s: int = Field(10, ge=1, le=3600)
    """Seconds between two signs of life of a running trial."""
    grace_s: int = Field(60, ge=1, le=86400)
    """Seconds without a sign of life after which a trial counts as dead, and is tried again."""
    max_retries: int = Field(3, ge=0)
    """Times that a trial whose worker died is tried again with its values; then a new one takes its place."""
    max_failures: int = Field(10, ge=0)
    """Trials that may fail by themselves before the sweep gives up; each is replaced by a new one."""
    register_best: bool = False
    """Register the best trial's encoder as candidate."""

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
        return "minimize" if self.target == Metrics.VAL_HUBER else "maximize"
