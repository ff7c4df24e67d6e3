"""The training loop: one encoder, one objective, and events for subscribers.

Randomness: the order of windows follows from (seed, epoch), dropout from (seed, epoch, step). Masks and jitter come
from a generator whose state is part of every checkpoint. Validation draws its masks from a fixed seed, so all epochs
are scored on the same steps. Nothing depends on how a batch is split over threads and processes (``engine.py``).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moola_mlflow.core import (
    DRAWS,
    DROPOUT,
    EVALUATION,
    MIRROR,
    ORDER,
    Metrics,
    OptimizerConfig,
    ScheduleConfig,
    TrainerConfig,
    TrainingKeys,
    TrainingRuntimeConfig,
    is_tuned,
    mixed_seed,
    seeded_generator,
)
from moola_mlflow.models import Checkpointer, Errors, use_torch_dropout
from moola_mlflow.training import engine, nan_report, training_state
from moola_mlflow.training.distributed import PeerLost, World
from moola_mlflow.training.engine import Engine, Pretraining
from moola_mlflow.training.events import EpochEnded, MemoryRanOut, StepEnded, TrainingEvent, WentBack
from moola_mlflow.training.nan_report import NumbersWrong
from moola_mlflow.training.optimizer import AdamW
from moola_mlflow.training.schedule import scheduled
from moola_mlflow.training.validation import Evaluation
from moola_mlflow.windows import Batch, BatchSource, Split

EPOCH_SCORES = ("loss", "loss_profiled", "huber", "mae", "skill", "sigma")


@dataclass(frozen=True)
class TrainerSettings:
    """The sections of the configuration that a trainer reads, and the precision that the hardware gives."""

    trainer: TrainerConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    runtime: TrainingRuntimeConfig
    precision: str = "fp32"

    @classmethod
    def of(cls, config: TrainingKeys, precision: str = "fp32") -> TrainerSettings:
        """Return the settings of a configuration."""
        return cls(config.trainer, config.optimizer, config.schedule, config.runtime, precision)


@dataclass
class Progress:
    """Where a training is: the part of a checkpoint that is not tensors of the model."""

    epoch: int = 0
    step: int = 0
    """Steps done in this epoch."""
    best_epoch: int = -1
    best_huber: float = math.inf
    train_sums: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Loss times count, absolute error and count, summed over the steps done in this epoch."""
    lr: float = 0.0
    """Learning rate of the last step."""
    lr_scale: float = 1.0
    """Factor on the schedule's learning rate: halved when training went back."""
    elapsed_s: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingResult:
    """How training ended: ``stopped`` is None, or why it was asked to stop before its end."""

    progress: Progress
    stopped: str | None


class Trainer:
    """Trains one encoder with one objective on the windows of a split.

    Without a ``checkpointer`` nothing is written. ``should_stop`` is asked after every step for a reason to stop.
    """

    def __init__(
        self,
        model: Pretraining,
        source: BatchSource,
        split: Split,
        settings: TrainerSettings,
        checkpointer: Checkpointer | None = None,
        *,
        world: World | None = None,
        subscribers: Sequence[Callable[[TrainingEvent], None]] = (),
        should_stop: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.model, self.source, self.split, self.settings = model, source, split, settings
        self.device, self.checkpointer = source.device, checkpointer
        self.subscribers, self.should_stop = subscribers, should_stop
        self.progress = Progress()
        trainer, tuned = settings.trainer, is_tuned(settings.runtime)
        self.steps = math.ceil(len(split.train) / trainer.batch_size)
        self.total_steps = trainer.steps or self.steps * trainer.epochs
        self.epochs = math.ceil(self.total_steps / self.steps)
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        decay = settings.optimizer.weight_decay
        self.optimizer = AdamW(
            [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}],
            lr=settings.optimizer.lr,
            betas=(0.9, 0.999),
            fused=self.device.type in ("cpu", "cuda") and tuned,
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._lr_factor)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        # On the training device: numbers drawn on the CPU would be copied to it at every step.
        self.draws = self._generator(DRAWS)
        if not tuned:
            use_torch_dropout(model)
        parts = engine.num_parts(settings.runtime.shards, trainer.batch_size, self.device, tuned)
        self.engine = Engine(
            model, self.autocast, self.device, self.scaler, parts, world, lambda num: self._emit(MemoryRanOut(num))
        )
        self.watched = self.device.type == "cpu"
        """Whether the loss of every step is checked at once: on a GPU the host would have to wait for it."""
        self.evaluation = Evaluation(self.engine, source, split, self._generator)
        self._good: dict[str, Any] | None = None

    def fit(self) -> TrainingResult:
        """Train until the last epoch, the end of patience or a request to stop. Checkpoint each epoch and at a stop.

        Raises: NumbersWrong; PeerLost, after the state of the last whole step is saved (on a GPU: of the last epoch).
        """
        world = self.engine.world
        world.share([*self.model.state_dict().values()])
        self._remember()
        while not self._is_done():
            started = time.perf_counter()
            try:
                reason = self._train_epoch()
                self.progress.elapsed_s += time.perf_counter() - started
                if reason:
                    self._save_interrupted()
                    return TrainingResult(self.progress, reason)
                self._finish_epoch(started)
            except NumbersWrong as e:
                self._go_back(e)
            except PeerLost:
                if self._is_readable:
                    self._save_interrupted()
                raise
            if reason := world.agree(self.should_stop()):  # asked during validation: the epoch's checkpoint is written
                return TrainingResult(self.progress, reason)
        return TrainingResult(self.progress, None)

    def _is_done(self) -> bool:
        done, trainer = self.progress.epoch, self.settings.trainer
        return done >= self.epochs or done - 1 - self.progress.best_epoch >= trainer.patience

    def _train_epoch(self) -> str | None:
        """Run the steps left in this epoch; return the reason to stop, if there is one."""
        progress, size = self.progress, self.settings.trainer.batch_size
        self.model.train()
        rng = np.random.default_rng([self.settings.trainer.seed, ORDER, progress.epoch])
        order = self.source.windows.shuffled(self.split.train, rng)
        order = order[: size * (self.total_steps - progress.epoch * self.steps)]
        rng = np.random.default_rng([self.settings.trainer.seed, MIRROR, progress.epoch])
        flipped = rng.random(self.steps) < 0.5 if self.settings.trainer.mirror else None
        sums = torch.tensor(progress.train_sums, dtype=torch.float64 if self.device.type != "mps" else torch.float32)
        sums = sums.to(self.device)
        first_bad = torch.full((), -1, device=self.device)
        reason = None
        try:
            for batch in self.source.batches(order, size, progress.step, flipped):
                loss, norm, errors = self._step(batch)
                # With a loss scale an infinite gradient is a skipped step, not an error.
                checked = loss if self.scaler.is_enabled() else loss + norm
                if not self.watched:  # the device notes the first bad step and is asked once, at the end of the epoch
                    first_bad = torch.where((first_bad < 0) & ~checked.isfinite(), progress.step, first_bad)
                elif not math.isfinite(float(checked)):
                    raise self._wrong(float(loss), float(norm), batch)
                self._update()
                count = errors.count_K.sum()
                sums += torch.stack([loss * count, errors.absolute_K.sum(), count]).to(sums.dtype)
                progress.step += 1
                self._emit(StepEnded(progress.epoch, progress.step, self.steps))
                if reason := self.engine.world.agree(self.should_stop()):
                    break
        except PeerLost:
            if self._is_readable:  # the epoch goes on from here, and its mean is over all of its steps
                progress.train_sums = tuple(sums.tolist())
            raise
        if (bad := int(first_bad)) >= 0:
            progress.step = bad
            batch = next(self.source.batches(order[: (bad + 1) * size], size, bad, flipped))
            raise self._wrong(math.nan, None, batch)
        progress.train_sums = tuple(sums.tolist())
        return reason

    def _step(self, batch: Batch) -> tuple[Tensor, Tensor, Errors]:
        """Leave clipped gradients in the parameters; return loss, gradient norm and summed errors."""
        key = mixed_seed(self.settings.trainer.seed, DROPOUT, self.progress.epoch, self.progress.step)
        self.optimizer.zero_grad(set_to_none=True)
        result = self.engine.step(batch, self.draws, key)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.engine.parameters, self.settings.trainer.clip_norm)
        self._drawn = result.state
        return result.loss, norm, result.errors

    def _update(self) -> None:
        """Move the weights along their gradients, and the schedule and the generator on by a step."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.progress.lr = self.optimizer.param_groups[0]["lr"]
        self.scheduler.step()
        self.draws.set_state(self._drawn)  # last: a step that failed half-way has drawn nothing

    def _finish_epoch(self, started: float) -> None:
        """Score the validation windows, save a checkpoint and tell the subscribers."""
        progress = self.progress
        loss, absolute, count = progress.train_sums
        trained_s = time.perf_counter() - started
        scores = self.evaluation.scores("val")
        metrics = {
            Metrics.TRAIN_LOSS: loss / max(count, 1),
            Metrics.TRAIN_MAE: absolute / max(count, 1),
            **{f"{Metrics.VAL}{name}": value for name, value in scores.items() if name in EPOCH_SCORES},
            **self.evaluation.further_scores(),
            Metrics.LR: progress.lr,
            Metrics.EPOCH_SECONDS: trained_s,
            Metrics.WINDOWS_PER_SECOND: len(self.split.train) / trained_s,
        }
        huber = metrics[Metrics.VAL_HUBER]
        if not math.isfinite(huber):
            raise NumbersWrong(
                f"{Metrics.VAL_HUBER} is {huber} after epoch {progress.epoch + 1}, the training loss was finite; lower "
                "optimizer.lr or set runtime.precision=fp32; the checkpoints of earlier epochs are kept",
                {"epoch": progress.epoch, "step": progress.step, "scores": scores},
            )
        improved = huber < progress.best_huber
        if improved:
            progress.best_huber, progress.best_epoch = huber, progress.epoch
        progress.history.append(metrics)
        progress.epoch, progress.step, progress.train_sums = progress.epoch + 1, 0, (0.0, 0.0, 0.0)
        if self.checkpointer is not None:
            self.checkpointer.save_epoch(self.state(), huber)
        self._remember()
        self._emit(EpochEnded(progress.epoch - 1, self.epochs, metrics, improved))

    def _save_interrupted(self) -> None:
        if self.checkpointer is not None:
            self.checkpointer.save_interrupted(self.state())

    def _remember(self) -> None:
        """Keep the last good state in memory, if training may have to go back to it."""
        if self.settings.trainer.nan_retry:
            self._good = copy.deepcopy(self.state())

    def _go_back(self, error: NumbersWrong) -> None:
        """Restore the last good epoch and halve the learning rate, once. Raises: the error if that is not possible."""
        if self._good is None or self.progress.lr_scale < 1:
            raise error
        self.restore(self._good)
        self.progress.lr_scale = 0.5
        self.set_rate()
        self._emit(WentBack(self.progress.epoch, self.progress.lr_scale, error))

    def state(self) -> dict[str, Any]:
        """Return everything that a continued training needs, as tensors, numbers and text."""
        return training_state.collect(self)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state as if training had never stopped.

        Call it last before ``fit``: random numbers drawn in between would change what follows.

        Raises: UserError if the state is of another network or another kind of device, or lacks a part.
        """
        training_state.restore(self, state)

    def set_rate(self) -> None:
        """Set the learning rate of the next step."""
        for group, base in zip(self.optimizer.param_groups, self.scheduler.base_lrs, strict=True):
            group["lr"] = base * self._lr_factor(self.scheduler.last_epoch)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which encoders and decoders run."""
        dtype = torch.float16 if self.settings.precision == "fp16" else torch.bfloat16
        enabled = self.settings.precision != "fp32"
        # Without autocast's cache, which all threads share: a pass casts every weight only once anyway.
        return torch.autocast(self.device.type, dtype, enabled=enabled, cache_enabled=False)

    @property
    def _is_readable(self) -> bool:
        """Whether the state can be read once a peer is lost.

        On a GPU the sum with a lost peer returns at once and never ends, so every later read waits for ever.
        """
        return self.device.type != "cuda"

    def _lr_factor(self, step: int) -> float:
        return self.progress.lr_scale * scheduled(self.settings.schedule, step, self.total_steps, self.steps)

    def _generator(self, *purpose: int) -> torch.Generator:
        device = self.device if self.device.type == "cuda" else "cpu"
        return seeded_generator(self.settings.trainer.seed, *purpose, device=device)

    def _wrong(self, loss: float, norm: float | None, batch: Batch) -> NumbersWrong:
        """Return the error that says where a loss stopped being finite and what its input looked like."""
        advice = (
            f"lower optimizer.lr (now {self.settings.optimizer.lr:g}) or trainer.clip_norm, set "
            "runtime.precision=fp32, or let training go back by itself with trainer.nan_retry=true"
        )
        at = nan_report.FailedStep(self.progress.epoch, self.progress.step, loss, norm)
        found = nan_report.diagnose(at, self.model.eval(), self.source, batch, lambda: self._generator(EVALUATION))
        start_ns = self.source.windows.start_ns[batch.index]
        times = nan_report.utc_minute(start_ns.min()), nan_report.utc_minute(start_ns.max())
        return NumbersWrong(nan_report.in_words(found, self.steps, times, advice), found)

    def _emit(self, event: TrainingEvent) -> None:
        for subscriber in self.subscribers:
            subscriber(event)
