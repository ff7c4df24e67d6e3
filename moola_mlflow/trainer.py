"""The training loop: one encoder, one objective, events out, and nothing in but ``should_stop``.

Randomness: the order of windows comes from (seed, epoch); masks, jitter and dropout from generators whose states
are part of every checkpoint. Evaluation draws its masks from a fixed seed, so all epochs are scored on the same steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from moola_mlflow.batches import Batch, BatchSource
from moola_mlflow.checkpoint import CheckpointFolder
from moola_mlflow.config import Config
from moola_mlflow.encoders import Encoder
from moola_mlflow.errors import TrainingError, UserError
from moola_mlflow.objectives import Errors, Objective, leak
from moola_mlflow.runtime import generator
from moola_mlflow.splits import Split

# Purposes of seeds, so that no two streams share one.
ORDER, DRAWS, EVALUATION, RULERS, LEAK, PICTURES = range(6)
EVALUATION_BATCH = 256
EPOCH_SCORES = ("loss", "loss_profiled", "huber", "mae", "skill", "sigma")


@dataclass(frozen=True)
class EpochEnded:
    """What subscribers hear after each epoch; ``metrics`` are named as they are tracked."""

    epoch: int
    epochs: int
    metrics: dict[str, float]
    improved: bool


@dataclass(frozen=True)
class StepEnded:
    """What a progress display hears after each step."""

    epoch: int
    step: int
    steps: int


Event = EpochEnded | StepEnded


def lr_factor(step: int, total: int, warmup: int, final: float) -> float:
    """Return the share of the peak learning rate at a step: linear warm-up, then cosine to ``final``."""
    if step < warmup:
        return (step + 1) / warmup
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


@dataclass(frozen=True)
class Passes:
    """The batches of some windows, anew at each iteration: a sum fits part after part."""

    source: BatchSource
    index: np.ndarray

    def __iter__(self) -> Iterator[Batch]:
        return self.source.batches(self.index, EVALUATION_BATCH)


class Pretraining(nn.Module):
    """Encoder and objective as one module, so that a checkpoint's keys begin with ``encoder.`` or ``objective.``."""

    def __init__(self, encoder: Encoder, objective: Objective) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective


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
    elapsed_s: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Fitted:
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
        config: Config,
        precision: str,
        folder: CheckpointFolder,
        *,
        run_id: str = "",
        subscribers: Sequence[Callable[[Event], None]] = (),
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
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": optimizer.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=optimizer.lr,
            betas=(0.9, 0.999),
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._lr_factor)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.draws = generator(trainer.seed, DRAWS)
        self._rulers: dict[str, dict[str, Errors]] = {}

    def _lr_factor(self, step: int) -> float:
        total = self.steps * self.config.trainer.epochs
        warmup = min(round(self.config.schedule.warmup_epochs * self.steps), total // 2)
        return lr_factor(step, total, warmup, self.config.schedule.final_fraction)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which encoders and decoders run."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32")

    def fit(self) -> Fitted:
        """Train until the last epoch, patience, or a request to stop; checkpoint each epoch and at a stop."""
        progress, patience = self.progress, self.config.trainer.patience
        while progress.epoch < self.config.trainer.epochs and progress.epoch - 1 - progress.best_epoch < patience:
            started = time.perf_counter()
            reason = self._train_epoch()
            progress.elapsed_s += time.perf_counter() - started
            if reason:
                self.folder.save_interrupted(self.state())
                return Fitted(progress, reason)
            self._finish_epoch(time.perf_counter() - started)
            if reason := self.should_stop():  # asked during evaluation; the epoch's checkpoint is written
                return Fitted(progress, reason)
        return Fitted(progress, None)

    def _train_epoch(self) -> str | None:
        """Run the steps left in this epoch; return why to stop, if asked to."""
        progress, model = self.progress, self.model.train()
        size = self.config.trainer.batch_size
        order = np.random.default_rng([self.config.trainer.seed, ORDER, progress.epoch]).permutation(self.split.train)
        for batch in self.source.batches(order, size, first=progress.step):
            with self.autocast():
                errors = model.objective(model.encoder, batch, self.draws)
            loss = model.objective.loss(errors)
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), self.config.trainer.clip_norm)
            # With a loss scale an infinite gradient is a skipped step, not an error.
            if not math.isfinite(float(loss.detach() + (0.0 if self.scaler.is_enabled() else norm))):
                raise TrainingError(self._diagnosis(float(loss.detach()), float(norm), batch))
            self.scaler.step(self.optimizer)
            self.scaler.update()
            progress.lr = self.optimizer.param_groups[0]["lr"]
            self.scheduler.step()
            done = errors.detach()
            count = done.count_K.sum()
            sums = (loss.detach() * count, done.absolute_K.sum(), count)
            progress.train_sums = tuple(a + float(b) for a, b in zip(progress.train_sums, sums, strict=True))  # type: ignore[assignment]
            progress.step += 1
            self._emit(StepEnded(progress.epoch, progress.step, self.steps))
            if reason := self.should_stop():
                return reason
        return None

    def _finish_epoch(self, seconds: float) -> None:
        progress = self.progress
        loss, absolute, count = progress.train_sums
        metrics = {
            "train/loss": loss / max(count, 1),
            "train/mae": absolute / max(count, 1),
            **{f"val/{name}": value for name, value in self.evaluate("val").items() if name in EPOCH_SCORES},
            "lr": progress.lr,
            "epoch_seconds": seconds,
            "windows_per_second": len(self.split.train) / seconds,
        }
        if not math.isfinite(metrics["val/huber"]):
            raise TrainingError(
                f"val/huber is {metrics['val/huber']} after epoch {progress.epoch}, the training loss was finite; "
                "lower optimizer.lr or set runtime.precision=fp32; the checkpoints of earlier epochs are kept"
            )
        improved = metrics["val/huber"] < progress.best_huber
        if improved:
            progress.best_huber, progress.best_epoch = metrics["val/huber"], progress.epoch
        progress.history.append(metrics)
        progress.epoch, progress.step, progress.train_sums = progress.epoch + 1, 0, (0.0, 0.0, 0.0)
        self.folder.save_epoch(self.state(), metrics["val/huber"])
        self._emit(EpochEnded(progress.epoch - 1, self.config.trainer.epochs, metrics, improved))

    @torch.no_grad()
    def evaluate(self, part: str) -> dict[str, float]:
        """Score a part of the split on masks drawn from a fixed seed.

        Returns loss, huber, mae (raw feature units), loss_profiled, skill, skill_<group>, sigma where learned, and
        mae_<target> and skill_<target>.
        """
        model, objective = self.model.eval(), self.model.objective
        draws = generator(self.config.trainer.seed, EVALUATION, part == "test")
        needs_rulers = part not in self._rulers
        total: Errors | None = None
        rulers: dict[str, Errors] = {}
        for batch in self.source.batches(getattr(self.split, part), EVALUATION_BATCH):
            drawn = objective.draw(batch, draws)
            with self.autocast():
                h_BTD = model.encoder.encode(objective.encoder_input(model.encoder, batch, drawn, draws))
                errors = objective.errors(model.encoder, h_BTD, batch, drawn)
            total = errors if total is None else total + errors
            if needs_rulers:
                for name, ruler in objective.ruler_errors(model.encoder, batch, drawn).items():
                    rulers[name] = rulers[name] + ruler if name in rulers else ruler
        assert total is not None, "a split is never empty"
        if needs_rulers:
            self._rulers[part] = rulers
        huber = objective.huber(total)
        skill = objective.skills(total, self._rulers[part])
        count = total.count_K.clamp(min=1)
        scores = {
            "loss": float(objective.loss(total)),
            "huber": float(huber),
            "mae": float(total.absolute_K.sum() / count.sum()),
            "loss_profiled": 0.5 + 0.5 * math.log(max(float(huber), 1e-30)),
            "skill": skill.pop(""),
        }
        if (sigma := objective.sigma()) is not None:
            scores["sigma"] = sigma
        scores |= {f"skill_{name}": value for name, value in skill.items()}
        scores |= {f"mae_{name}": float(total.absolute_K[i] / count[i]) for i, name in enumerate(objective.targets)}
        return scores

    @torch.no_grad()
    def reconstruct(self, num_windows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return prediction, target and loss positions of the same validation windows on every call.

        Shapes: [N, T, K] each. Units: the objective's reporting units.
        """
        model = self.model.eval()
        order = self.split.val[np.linspace(0, len(self.split.val) - 1, num_windows).astype(int)]
        batch = next(iter(self.source.batches(order, num_windows)))
        draws = generator(self.config.trainer.seed, PICTURES)
        drawn = model.objective.draw(batch, draws)
        with self.autocast():
            h_BTD = model.encoder.encode(model.objective.encoder_input(model.encoder, batch, drawn, draws))
            shown = model.objective.shown(model.encoder, h_BTD, batch, drawn)
        predicted, target, where = (tensor.cpu().numpy() for tensor in shown)
        return predicted, target, where

    def ruler_hubers(self, part: str) -> dict[str, float]:
        """Return each ruler's Huber on an evaluated part."""
        return {name: float(errors.huber()) for name, errors in self._rulers[part].items()}

    def fit_rulers(self) -> None:
        """Fit the objective's targets and then its rulers, both on the training windows alone."""
        objective, batches = self.model.objective, Passes(self.source, self.split.train)
        with torch.no_grad():
            objective.fit_targets(batches)
            objective.fit_rulers(self.model.encoder, batches, generator(self.config.trainer.seed, RULERS))

    def leak(self) -> float:
        """Return how far validation encodings move when the input at hidden steps is replaced by noise."""
        batch = next(iter(self.source.batches(self.split.val[:EVALUATION_BATCH], EVALUATION_BATCH)))
        model, measured = self.model, []
        for context in (self.autocast, nullcontext):  # what bf16 rounds away is a leak all the same
            with context():
                measured.append(
                    leak(model.objective, model.encoder, batch, lambda: generator(self.config.trainer.seed, LEAK))
                )
        return max(measured)

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
            "rng": {
                "draws": self.draws.get_state(),
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
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
        """
        try:
            self.model.load_state_dict(state["model_state_dict"])
            self.optimizer.load_state_dict(state["optimizer_state_dict"])
        except (RuntimeError, ValueError) as e:
            raise UserError(
                "this configuration makes another network than the checkpoint holds, so training cannot go on from it: "
                f"{' '.join(str(e).split())[:300]}; keep encoder.*, features.set and objective.* as they were"
            ) from e
        self.scheduler.last_epoch = state["scheduler"]["last_epoch"]
        for group, base in zip(self.optimizer.param_groups, self.scheduler.base_lrs, strict=True):
            group["lr"] = base * self._lr_factor(self.scheduler.last_epoch)
        self.scaler.load_state_dict(state["scaler"])
        self.draws.set_state(state["rng"]["draws"])
        torch.set_rng_state(state["rng"]["torch"])
        if self.device.type == "cuda" and state["rng"]["cuda"]:
            torch.cuda.set_rng_state_all(state["rng"]["cuda"])
        progress = state["progress"]
        self.progress = Progress(**{**progress, "train_sums": tuple(progress["train_sums"])})

    def _diagnosis(self, loss: float, norm: float, batch: Batch) -> str:
        """Say where a loss stopped being finite and what its input looked like."""
        times = self.source.windows.start_ns[batch.index]
        first, last = (str(np.datetime64(int(t), "ns"))[:16] for t in (times.min(), times.max()))
        z_BTF = self.model.encoder.standardise(batch.x_BTF).flatten(0, 1)
        worst = z_BTF.abs().amax(0)
        named = sorted(zip(self.source.names, worst.tolist(), strict=True), key=lambda row: -row[1])[:3]
        return (
            f"loss is {loss}, gradient norm {norm:.3g} at epoch {self.progress.epoch}, step {self.progress.step} "
            f"of {self.steps} (batch of {len(batch.index)} windows starting {first} to {last} UTC); largest |z| of the "
            f"input: {', '.join(f'{name} {value:.3g}' for name, value in named)}; lower optimizer.lr "
            f"(now {self.config.optimizer.lr:g}) or trainer.clip_norm, or set runtime.precision=fp32"
        )

    def _emit(self, event: Event) -> None:
        for subscriber in self.subscribers:
            subscriber(event)
