"""One trial of a pre-training sweep: train a configuration, and score it on validation windows, never on test."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from moola_mlflow.bars import Bars
from moola_mlflow.core import PretrainSweepKeys, SweepKeys, TrainingError
from moola_mlflow.evaluation import encoder_gates, frozen_copy, probe
from moola_mlflow.models import BEST_CHECKPOINT, Checkpointer, about_training, load_checkpoint, save_encoder
from moola_mlflow.reports import Results, encoder_card, encoder_version_tags, score_encoder
from moola_mlflow.sweep import trial_runs
from moola_mlflow.sweep.trial_runs import KEPT_ENCODER
from moola_mlflow.sweep.worker import Reporter, Stopped, TrialOutcome
from moola_mlflow.tracking import RUNS, Artifacts, Metrics, no_local_artifacts
from moola_mlflow.training import (
    DATA_SECTIONS,
    EpochEnded,
    Trainer,
    TrainingData,
    TrainingEvent,
    build_trainer,
    check_leak,
    check_names,
    prepare,
)

TIMED_STEPS = 4
VALIDATION_COST = 1 / 3
"""Time of a forward pass, as a share of a training step."""
MAX_PREPARED = 2
"""Number of data sets that stay in memory."""


class PretrainTrials:
    """Trains trials. Bars and features are prepared once for all trials that share their keys."""

    def __init__(self, device: torch.device, precision: str, preset: str = "sweep") -> None:
        self.device, self.precision, self.preset = device, precision, preset
        self._prepared: dict[str, TrainingData] = {}

    def data(self, config: PretrainSweepKeys) -> TrainingData:
        """Return the data of a configuration. The last few stay in memory."""
        tree = config.model_dump(mode="json")
        key = json.dumps([*(tree[section] for section in DATA_SECTIONS), tree["encoder"]["inputs"]])
        if key not in self._prepared:
            check_names(config)
            while len(self._prepared) >= MAX_PREPARED:
                self._prepared.pop(next(iter(self._prepared)))
            self._prepared[key] = prepare(config, self.device)
        return self._prepared[key]

    @property
    def bars(self) -> Bars:
        """The bars that were read last."""
        return next(reversed(self._prepared.values())).bars

    def clock(self) -> float:
        """Return seconds; CPU time if trials train on the CPU, so that other processes do not count."""
        return time.process_time() if self.device.type == "cpu" else time.perf_counter()

    def __call__(self, config: SweepKeys, report: Reporter) -> TrialOutcome:
        assert isinstance(config, PretrainSweepKeys)
        data, folder = self.data(config), RUNS / report.run.id
        try:
            return self._train(config, data, report, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # everything worth keeping is in the store

    def _train(self, config: PretrainSweepKeys, data: TrainingData, report: Reporter, folder: Path) -> TrialOutcome:
        started = time.perf_counter()
        config = self._budgeted(config, data)
        checkpointer = Checkpointer(folder / "checkpoints", about_training(config, report.run.id))
        trainer = build_trainer(config, data, self.precision, checkpointer)
        model = trainer.model
        trainer.should_stop = report.should_stop
        trainer.evaluation.fit_baselines()
        model.encoder.task_heads = model.objective.task_heads()
        initial, leak = frozen_copy(model.encoder), check_leak(trainer)
        probing, scoring_s = report.target == Metrics.PROBE_R2_GAIN, 0.0

        def gain() -> float:
            """Return the probe's gain on validation windows: a search on test windows would use them up."""
            split = dataclasses.replace(data.split, test=data.split.val)
            return probe(model.encoder, initial, data.source, split, trainer.autocast).gain

        def track(event: TrainingEvent) -> None:
            nonlocal scoring_s
            if not isinstance(event, EpochEnded):
                return
            began_at = self.clock()
            if not probing:
                report.epoch(event.epoch, _value(event.metrics, report.target), event.metrics)
            elif config.sweep.pruner == "none":  # a probe every epoch would cost more than it is worth
                report.run.metrics(event.metrics, event.epoch)
            else:
                report.epoch(event.epoch, gain(), event.metrics)
            scoring_s += self.clock() - began_at

        trainer.subscribers = (track,)
        began_at = self.clock()
        fitted = trainer.fit()
        seconds = self.clock() - began_at - scoring_s
        if fitted.stopped:
            raise Stopped(fitted.stopped)
        best = load_checkpoint(folder / "checkpoints" / BEST_CHECKPOINT)
        model.load_state_dict(best["model_state_dict"])
        value = gain() if probing else fitted.progress.best_huber
        if report.target == Metrics.FEW_SHOT:
            value = _value(trainer.evaluation.further_scores(), report.target)
        if config.sweep.register_best and report.is_best(value):
            results = score_encoder(trainer, config, initial, leak, started)
            self._keep_encoder(trainer, results, data, report, folder)
        epochs = len(fitted.progress.history)
        windows = epochs * len(data.split.train)
        return TrialOutcome(value, seconds, {Metrics.SWEEP_EPOCHS: epochs, Metrics.SWEEP_WINDOWS: windows})

    def _budgeted(self, config: PretrainSweepKeys, data: TrainingData) -> PretrainSweepKeys:
        """Return the configuration with as many epochs as the budget allows, at least one."""
        sweep, num_train = config.sweep, len(data.split.train)
        if sweep.budget_amount is None:
            return config
        cost = num_train if sweep.budget == "windows" else self._epoch_seconds(config, data)
        return with_epochs(config, max(1, round(sweep.budget_amount / cost)))

    def _epoch_seconds(self, config: PretrainSweepKeys, data: TrainingData) -> float:
        """Estimate the seconds of one epoch from a few steps of a model that is thrown away."""
        size = min(TIMED_STEPS * config.trainer.batch_size, len(data.split.train))
        few = dataclasses.replace(data.split, train=data.split.train[:size], val=data.split.val[:1])
        small = dataclasses.replace(data, split=few)
        trainer = build_trainer(with_epochs(config, 2), small, self.precision)
        trainer.evaluation.fit_baselines()
        at: list[float] = []
        trainer.subscribers = (lambda event: at.append(self.clock()) if isinstance(event, EpochEnded) else None,)
        trainer.fit()
        return (at[1] - at[0]) / size * (len(data.split.train) + VALIDATION_COST * len(data.split.val))

    def _keep_encoder(
        self, trainer: Trainer, results: Results, data: TrainingData, report: Reporter, folder: Path
    ) -> None:
        """Upload the encoder of the best trial so far, with its evidence.

        Another machine may end the sweep, so the store must hold it. The end of the sweep deletes it if a later trial
        was better.
        """
        trainer.model.encoder.task_heads = trainer.model.objective.task_heads()
        card = encoder_card(trainer, results, data.bars, dict(data.quality), report.run.id)
        save_encoder(trainer.model.encoder, card, folder / "encoder")
        tags = encoder_version_tags(card, self.preset, results, encoder_gates(card, results.config.gates))
        (folder / "encoder" / Artifacts.VERSION_TAGS).write_text(json.dumps(tags), encoding="utf-8")
        send = report.run.client.log_artifacts
        with no_local_artifacts():
            trial_runs.retry_during_outage(
                lambda: send(report.run.id, str(folder / "encoder"), KEPT_ENCODER), report.should_stop
            )
        report.trial.set_user_attr(KEPT_ENCODER, True)


def _value(scores: Mapping[str, float], target: str) -> float:
    """Return the value of the target. Raises: TrainingError if it is missing or NaN."""
    value = scores.get(target, math.nan)
    if math.isnan(value):
        raise TrainingError(f"{target} is not a number: too few validation windows; give more bars or widen split.val")
    return value


def with_epochs(config: PretrainSweepKeys, epochs: int) -> PretrainSweepKeys:
    """Return the configuration with another number of epochs, in place of a number of steps."""
    trainer = config.trainer.model_copy(update={"epochs": epochs, "steps": None})
    return config.model_copy(update={"trainer": trainer})
