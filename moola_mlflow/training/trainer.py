"""The training loop: one encoder, one objective, events out, and nothing in but ``should_stop``.

Randomness: the order of windows comes from (seed, epoch), dropout from (seed, epoch, step), masks and jitter from a
generator whose state is part of every checkpoint. Evaluation draws its masks from a fixed seed, so all epochs are
scored on the same steps. Nothing depends on how a batch is shared out between threads and processes (``sharding.py``).
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
    ORDER,
    Metrics,
    TrainingKeys,
    UserError,
    mixed_seed,
    seeded_generator,
)
from moola_mlflow.models import CheckpointFolder, Errors, use_torch_dropout
from moola_mlflow.training import engine, nan_report
from moola_mlflow.training.distributed import PeerLost, World
from moola_mlflow.training.engine import Engine, Pretraining
from moola_mlflow.training.events import EpochEnded, MemoryRanOut, StepEnded, TrainingEvent, WentBack
from moola_mlflow.training.nan_report import NumbersWrong
from moola_mlflow.training.optimizer import AdamW
from moola_mlflow.training.validation import Evaluation
from moola_mlflow.windows import Batch, BatchSource, Split

EPOCH_SCORES = ("loss", "loss_profiled", "huber", "mae", "skill", "sigma")


def lr_factor(step: int, total: int, warmup: int, final: float) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then cosine to ``final``."""
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@dataclass
class Progress:
    """Where a run is: the part of a checkpoint that is not tensors of the model."""

    epoch: int = 0
    step: int = 0
    """Steps done in this epoch."""
    best_epoch: int = -1
    best_huber: float = math.inf
    train_sums: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Loss times count, absolute error and count over the steps done in this epoch."""
    lr: float = 0.0
    """Learning rate of the last step."""
    lr_scale: float = 1.0
    """What the schedule's rate is multiplied by: halved when training went back."""
    elapsed_s: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingResult:
    """How training ended: ``stopped`` is None, or why it was asked to stop before its end."""

    progress: Progress
    stopped: str | None


class Trainer:
    """Trains one encoder with one objective on the windows of a split."""

    def __init__(
        self,
        model: Pretraining,
        source: BatchSource,
        split: Split,
        config: TrainingKeys,
        precision: str,
        folder: CheckpointFolder,
        *,
        run_id: str = "",
        world: World | None = None,
        subscribers: Sequence[Callable[[TrainingEvent], None]] = (),
        should_stop: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.model, self.source, self.split, self.config = model, source, split, config
        self.device, self.precision, self.folder, self.run_id = source.device, precision, folder, run_id
        self.subscribers, self.should_stop = subscribers, should_stop
        self.progress = Progress()
        trainer, optimizer = config.trainer, config.optimizer
        self.steps = math.ceil(len(split.train) / trainer.batch_size)
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        self.optimizer = AdamW(
            [{"params": matrices, "weight_decay": optimizer.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=optimizer.lr,
            betas=(0.9, 0.999),
            fused=self.device.type in ("cpu", "cuda") and config.runtime.tune == "on",
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._lr_factor)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        # On a GPU it draws there: what is drawn here would have to be carried over, step by step.
        self.draws = self._generator(DRAWS)
        tuned = config.runtime.tune == "on"
        if not tuned:
            use_torch_dropout(model)
        self.engine = Engine(
            model, self.autocast, self.device,
            engine.num_parts(config.runtime.shards, trainer.batch_size, self.device, tuned),
            world, lambda rows: self._emit(MemoryRanOut(rows)),
        )  # fmt: skip
        self.watched = self.device.type == "cpu"
        """Whether every step's loss is looked at when it is made: on a GPU the host would have to wait for it."""
        self._good: dict[str, Any] | None = None
        self.evaluation = Evaluation(self.engine, source, split, self._generator)

    def _lr_factor(self, step: int) -> float:
        total = self.steps * self.config.trainer.epochs
        warmup = min(round(self.config.schedule.warmup_epochs * self.steps), total // 2)
        return self.progress.lr_scale * lr_factor(step, total, warmup, self.config.schedule.final_fraction)

    def _generator(self, *purpose: int) -> torch.Generator:
        device = self.device if self.device.type == "cuda" else "cpu"
        return seeded_generator(self.config.trainer.seed, *purpose, device=device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which encoders and decoders run."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        # Without its cache, which all threads share: every weight is cast once a pass anyway.
        enabled = self.precision != "fp32"
        return torch.autocast(self.device.type, dtype, enabled=enabled, cache_enabled=False)

    def fit(self) -> TrainingResult:
        """Train until the last epoch, patience, or a request to stop; checkpoint each epoch and at a stop.

        Raises: NumbersWrong; PeerLost, after the state of the last whole step is saved (on a GPU: of the last epoch).
        """
        world, patience = self.engine.world, self.config.trainer.patience
        world.share([*self.model.state_dict().values()])
        self._keep()
        while (done := self.progress.epoch) < self.config.trainer.epochs and (
            done - 1 - self.progress.best_epoch < patience
        ):
            started = time.perf_counter()
            try:
                reason = self._train_epoch()
                self.progress.elapsed_s += time.perf_counter() - started
                if reason:
                    self._save(None)
                    return TrainingResult(self.progress, reason)
                self._finish_epoch(started)
            except NumbersWrong as e:
                self._go_back(e)
            except PeerLost:
                if self._readable:
                    self._save(None)
                raise
            if reason := world.agree(self.should_stop()):  # asked during evaluation; the epoch's checkpoint is written
                return TrainingResult(self.progress, reason)
        return TrainingResult(self.progress, None)

    @property
    def _readable(self) -> bool:
        """Whether the state can be read once a peer is lost.

        A GPU's sum with the lost one returns at once and never ends: whatever is read there waits for it.
        """
        return self.device.type != "cuda"

    def _train_epoch(self) -> str | None:
        """Run the steps left in this epoch; return why to stop, if asked to."""
        progress, seed = self.progress, self.config.trainer.seed
        self.model.train()
        size = self.config.trainer.batch_size
        rng = np.random.default_rng([seed, ORDER, progress.epoch])
        order = self.source.windows.shuffled(self.split.train, rng)
        sums = torch.tensor(progress.train_sums, dtype=torch.float64 if self.device.type != "mps" else torch.float32)
        sums = sums.to(self.device)
        first_bad = torch.full((), -1, device=self.device)
        reason = None
        try:
            for batch in self.source.batches(order, size, first=progress.step):
                loss, norm, done = self._step(batch)
                # With a loss scale an infinite gradient is a skipped step, not an error.
                seen = loss if self.scaler.is_enabled() else loss + norm
                if not self.watched:  # the first bad step is noted on the device and asked for once
                    first_bad = torch.where((first_bad < 0) & ~seen.isfinite(), progress.step, first_bad)
                elif not math.isfinite(float(seen)):
                    raise self._wrong(float(loss), float(norm), batch)
                self._update()
                count = done.count_K.sum()
                sums += torch.stack([loss * count, done.absolute_K.sum(), count]).to(sums.dtype)
                progress.step += 1
                self._emit(StepEnded(progress.epoch, progress.step, self.steps))
                if reason := self.engine.world.agree(self.should_stop()):
                    break
        except PeerLost:
            if self._readable:  # the epoch goes on from here, and its mean is over all of its steps
                progress.train_sums = tuple(sums.tolist())
            raise
        if (bad := int(first_bad)) >= 0:
            progress.step = bad
            batch = next(self.source.batches(order[: (bad + 1) * size], size, first=bad))
            raise self._wrong(math.nan, None, batch)
        progress.train_sums = tuple(sums.tolist())
        return reason

    def _step(self, batch: Batch) -> tuple[Tensor, Tensor, Errors]:
        """Leave clipped gradients in the parameters; return loss, gradient norm and summed errors."""
        progress, objective = self.progress, self.model.objective
        key = mixed_seed(self.config.trainer.seed, DROPOUT, progress.epoch, progress.step)
        kept: list[Any] = []
        self.optimizer.zero_grad(set_to_none=True)

        def slope(errors: Errors) -> Tensor:
            loss = objective.loss(errors)
            self.scaler.scale(loss).backward()  # the objective's own parameters have their gradients from here
            kept.extend((loss.detach(), errors.detach()))
            return loss

        found = self.engine.step(batch, self.draws, key, slope)
        for parameter, gradient in zip(self.engine.parameters, found.by_parameter, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.engine.parameters, self.config.trainer.clip_norm)
        self._drawn = found.state
        return kept[0], norm, kept[1]

    def _update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.progress.lr = self.optimizer.param_groups[0]["lr"]
        self.scheduler.step()
        self.draws.set_state(self._drawn)  # last: a step that fails half-way has not been

    def _finish_epoch(self, started: float) -> None:
        progress = self.progress
        loss, absolute, count = progress.train_sums
        trained = time.perf_counter() - started
        scores = self.evaluation.scores("val")
        metrics = {
            Metrics.TRAIN_LOSS: loss / max(count, 1),
            Metrics.TRAIN_MAE: absolute / max(count, 1),
            **{f"{Metrics.VAL}{name}": value for name, value in scores.items() if name in EPOCH_SCORES},
            Metrics.LR: progress.lr,
            Metrics.EPOCH_SECONDS: trained,
            Metrics.WINDOWS_PER_SECOND: len(self.split.train) / trained,
        }
        huber = metrics[Metrics.VAL_HUBER]
        if not math.isfinite(huber):
            raise NumbersWrong(
                f"{Metrics.VAL_HUBER} is {huber} after epoch {progress.epoch}, the training loss was finite; "
                "lower optimizer.lr or set runtime.precision=fp32; the checkpoints of earlier epochs are kept",
                {"epoch": progress.epoch, "step": progress.step, "scores": scores},
            )
        improved = huber < progress.best_huber
        if improved:
            progress.best_huber, progress.best_epoch = huber, progress.epoch
        progress.history.append(metrics)
        progress.epoch, progress.step, progress.train_sums = progress.epoch + 1, 0, (0.0, 0.0, 0.0)
        self._save(huber)
        self._keep()
        self._emit(EpochEnded(progress.epoch - 1, self.config.trainer.epochs, metrics, improved))

    def _save(self, huber: float | None) -> None:
        """Save the state of a finished epoch, or, without its Huber, of one in progress; rank 0 alone writes."""
        if self.engine.world.rank:
            return
        if huber is None:
            self.folder.save_interrupted(self.state())
        else:
            self.folder.save_epoch(self.state(), huber)

    def _keep(self) -> None:
        """Keep the last good state in memory, where training may have to go back to it."""
        if self.config.trainer.nan_retry:
            self._good = copy.deepcopy(self.state())

    def _go_back(self, error: NumbersWrong) -> None:
        """Restore the last good epoch and halve the rate, once; raise where that is not wanted or has been done."""
        if self._good is None or self.progress.lr_scale < 1:
            raise error
        self.restore(self._good)
        self.progress.lr_scale = 0.5
        self._set_rate()
        self._emit(WentBack(self.progress.epoch, self.progress.lr_scale, error))

    def state(self) -> dict[str, Any]:
        """Return everything that a continued run needs, as tensors, numbers and text."""
        progress = self.progress
        last = progress.history[-1] if progress.history else {}
        return {
            "epoch": progress.epoch - 1,
            "model_state_dict": self.model.state_dict(),
            "optimizer_state_dict": self.optimizer.state_dict(),
            "scheduler": {"last_epoch": self.scheduler.last_epoch},
            "scaler": self.scaler.state_dict(),
            "shards": self.engine.parts * self.engine.world.size,
            "device": self.device.type,
            "rng": {
                "draws": self.draws.get_state(),
                "torch": torch.get_rng_state(),
                "cuda": [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else [],
            },
            "metrics": {name.replace("/", "_"): value for name, value in last.items()},
            "progress": {**vars(progress), "train_sums": list(progress.train_sums), "history": list(progress.history)},
            "config": self.config.model_dump(mode="json"),
            "seed": self.config.trainer.seed,
            "run_id": self.run_id,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state as if training had never stopped: weights, optimiser, schedule, generators and history.

        Call it last before ``fit``: whatever draws random numbers in between would change what follows.

        Raises: UserError where the state is of another network or another kind of device, or lacks a part.
        """
        self._check_device(state)
        try:
            self.model.load_state_dict(state["model_state_dict"])
            self.optimizer.load_state_dict(state["optimizer_state_dict"])
        except (RuntimeError, ValueError, KeyError, TypeError) as e:
            raise UserError(
                "this configuration makes another network than the checkpoint holds, so training cannot go on from it: "
                f"{' '.join(str(e).split())[:300]}; keep encoder.*, features.set and objective.* as they were"
            ) from e
        try:
            self._take_up(state)
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as e:
            raise UserError(
                f"training cannot go on from this checkpoint: it lacks a part, or holds another: {e!r}"
            ) from e

    def _check_device(self, state: dict[str, Any]) -> None:
        """Refuse a state whose generator drew on another kind of device: no other can go on with it."""
        rng = state.get("rng")
        draws = rng.get("draws") if isinstance(rng, dict) else None
        if not isinstance(draws, Tensor) or draws.numel() == self.draws.get_state().numel():
            return
        written = state.get("device", "another kind of device")  # files of earlier versions do not say
        raise UserError(
            f"training cannot go on from this checkpoint: it was written on {written}, and {self.device.type}, on "
            "which this training runs, draws random numbers in another way; allowed: the kind of device that it was "
            "written on; resume on the same kind of device, with runtime.device"
        )

    def _take_up(self, state: dict[str, Any]) -> None:
        """Take everything but weights and optimiser from a state."""
        progress = state["progress"]
        history = list(progress["history"])
        self.progress = Progress(**{**progress, "train_sums": tuple(progress["train_sums"]), "history": history})
        self.scheduler.last_epoch = state["scheduler"]["last_epoch"]
        self._set_rate()
        # The same bits on another number of cores or processes. A GPU is parallel by itself, and has one part.
        if self.device.type == "cpu" and not self.config.runtime.shards:
            self.engine.use_parts(max(1, state.get("shards", 1) // self.engine.world.size))
        self.scaler.load_state_dict(state["scaler"])
        self.draws.set_state(state["rng"]["draws"])
        torch.set_rng_state(state["rng"]["torch"])
        if self.device.type == "cuda" and (states := state["rng"]["cuda"]):
            # Files of earlier versions hold one of every GPU that was there, which may have been more or fewer.
            torch.cuda.set_rng_state(states[min(self.device.index or 0, len(states) - 1)], self.device)

    def _set_rate(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self.scheduler.base_lrs, strict=True):
            group["lr"] = base * self._lr_factor(self.scheduler.last_epoch)

    def _wrong(self, loss: float, norm: float | None, batch: Batch) -> NumbersWrong:
        """Say where a loss stopped being finite and what its input looked like."""
        start_ns = self.source.windows.start_ns
        first, last = (
            str(np.datetime64(int(t), "ns"))[:16]
            for t in sorted(start_ns[batch.index])[:: max(1, len(batch.index) - 1)][:2]
        )
        self.model.eval()
        found = nan_report.describe(
            where={"epoch": self.progress.epoch, "step": self.progress.step},
            loss=loss, norm=norm, model=self.model, batch=batch,
            z_BTF=self.model.encoder.standardise(batch.x_BTF), names=self.source.names, start_ns=start_ns,
            score=lambda one: self.model.objective(self.model.encoder, one, self._generator(EVALUATION)),
        )  # fmt: skip
        cure = (
            f"lower optimizer.lr (now {self.config.optimizer.lr:g}) or trainer.clip_norm, set runtime.precision=fp32, "
            "or let training go back by itself with trainer.nan_retry=true"
        )
        return NumbersWrong(nan_report.in_words(found, self.steps, (first, last), cure), found)

    def _emit(self, event: TrainingEvent) -> None:
        for subscriber in self.subscribers:
            subscriber(event)
