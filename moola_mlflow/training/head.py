"""Fitting a detector on given windows: a head on cached inputs, or encoder and head together.

Everything that is chosen here (the epoch) is chosen on the held windows of an inner split; which windows those are,
and which outer fold is scored afterwards, is the caller's business.

Shape legend: N windows, T steps, P inputs a step, C classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.core import TrainingError, seeded_generator
from moola_mlflow.models import HIT_BARS, Detector, Encoder, EncoderDetector, Inputs, Span
from moola_mlflow.training.optimizer import AdamW

Index = np.ndarray
"""Positions of windows, int64."""

# Purposes of seeds, so that no two streams share one.
WEIGHTS, DRAWS = 40, 41
CHUNK = 256
# Of a head's own schedule: a few hundred steps, on which `schedule.*`, counted in epochs, would be coarse.
WARMUP_STEPS = 5
FINAL_FRACTION = 0.05


@dataclass(frozen=True)
class HeadSettings:
    """How a head is fitted."""

    epochs: int = 20
    """The schedule's length; early stopping keeps the best epoch's weights."""
    batch_size: int = 29
    lr: float = 4e-3
    weight_decay: float = 1e-2
    patience: int = 8
    """Epochs without a better held-out score after which fitting ends; of those in which all is trained."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    gamma: float = 0.0
    """Of the focal class loss; 0 is cross-entropy."""
    class_balanced: bool = False
    """Draw windows so that classes come up equally often."""
    jitter_sigma: float = 0.0
    """Gaussian noise on every input, in units of its standard deviation, in training only."""
    mirror: bool = True
    """Swap highs and lows of half of the windows in training, where mirrored inputs are given."""
    head: str = "span"
    inputs: Inputs = "both"
    encoder_lr: float = 1e-4
    """Of an encoder that is trained on."""
    unfreeze_at: int = 0
    """Epoch from which on the encoder is trained too; none before it is kept, or counts for patience."""


@dataclass(frozen=True)
class Targets:
    """Labels and spans of all windows. Shapes: int64 [N] each."""

    label: Tensor
    start: Tensor
    end: Tensor

    def at(self, index: Tensor) -> tuple[Tensor, Span]:
        """Return labels and spans of some windows."""
        return self.label[index], (self.start[index], self.end[index])


@dataclass(frozen=True)
class FittedHead:
    """A fitted detector, and what it says about the held windows (nothing where none were held)."""

    model: Detector | EncoderDetector
    best_epoch: int
    """The epoch whose weights were kept, from 0."""
    held_logits: Tensor
    held_start: Tensor
    held_end: Tensor
    history: list[dict[str, float]]
    """By epoch: ``train_loss``; on the held windows ``held_nll``, its class part ``held_class_nll``, ``held_f1_macro``,
    ``held_joint_at_3``."""


def mirrored(ohlc_NT4: np.ndarray) -> np.ndarray:
    """Return the windows upside down: every move changes its sign, highs become lows."""
    return -ohlc_NT4[..., [0, 2, 1, 3]]


def fit_head(
    inputs_NTP: Tensor,
    label_N: np.ndarray,
    start_N: np.ndarray,
    end_N: np.ndarray,
    fit: Index,
    held: Index,
    num_classes: int,
    settings: HeadSettings,
    seed: int,
    *,
    mirrored_NTP: Tensor | None = None,
    lengths: tuple[int, int] | None = None,
    stop_after: int | None = None,
) -> FittedHead:
    """Fit a head on cached inputs; whatever made them gets no gradient.

    The epoch kept is the one with the lowest joint negative log-likelihood of the ``held`` windows (class at the
    decoded span, plus start and end): of 30 windows, Joint@3 moves in steps too coarse to choose by. With none held
    the last epoch is kept; ``stop_after`` then ends after that many epochs of the same schedule. ``lengths`` is the
    range of span lengths that decoding allows, by default that of the ``fit`` windows.

    Shapes: inputs float32 [N, T, P]; label, start, end int64 [N]; ``mirrored_NTP`` the same inputs of mirrored prices.
    The same seed and threads give the same weights; torch's global generator is left as it was.
    """
    inputs_NTP = inputs_NTP.detach()
    targets = _targets(label_N, start_N, end_N, inputs_NTP.device)
    with torch.random.fork_rng(devices=_cuda(inputs_NTP)):
        torch.manual_seed(_torch_seed(seed))
        size, steps = inputs_NTP.shape[-1], inputs_NTP.shape[1]
        detector = Detector(settings.head, size, num_classes, lengths or _lengths(targets, fit), steps)
        detector.to(inputs_NTP.device).fit_scaling(inputs_NTP[_tensor(fit, inputs_NTP)])
        loop = _Loop(detector, detector, inputs_NTP, mirrored_NTP, targets, settings, seed)
        return loop.run(fit, held, stop_after)


def fit_detector(
    encoder: Encoder,
    features_NTF: Tensor,
    label_N: np.ndarray,
    start_N: np.ndarray,
    end_N: np.ndarray,
    fit: Index,
    held: Index,
    num_classes: int,
    settings: HeadSettings,
    seed: int,
    *,
    mirrored_NTF: Tensor | None = None,
    lengths: tuple[int, int] | None = None,
    stop_after: int | None = None,
    precision: str = "fp32",
) -> FittedHead:
    """Fit a head and go on training a copy of the encoder, from epoch ``settings.unfreeze_at`` on; else as fit_head.

    The epoch kept is one of those that trained the encoder: an earlier one, however good, would return it untouched.

    Shapes: features [N, T, F + K]: the encoder's raw features first, then K inputs that the head reads beside the
    encoding (path features, or none). ``precision`` bf16 trains the encoder under autocast.

    Raises: ValueError where fitting would end before ``settings.unfreeze_at``.
    """
    if (epochs := _num_epochs(settings, stop_after)) <= settings.unfreeze_at:
        raise ValueError(
            f"unfreeze_at={settings.unfreeze_at}, but the last epoch is {epochs - 1}, counted from 0: the encoder "
            f"would stay as it is; allowed: 0 to {epochs - 1}, or more epochs, or fit_head on its encodings"
        )
    targets = _targets(label_N, start_N, end_N, features_NTF.device)
    with torch.random.fork_rng(devices=_cuda(features_NTF)):
        torch.manual_seed(_torch_seed(seed))
        encoder = copy.deepcopy(encoder).to(features_NTF.device).eval()
        size = encoder.output_size + features_NTF.shape[-1] - encoder.input_size
        lengths = lengths or _lengths(targets, fit)
        detector = Detector(settings.head, size, num_classes, lengths, features_NTF.shape[1]).to(features_NTF.device)
        model = EncoderDetector(encoder, detector, precision)
        with torch.no_grad():
            parts = _tensor(fit, features_NTF).split(CHUNK)
            detector.fit_scaling(torch.cat([model.read(features_NTF[part]) for part in parts]))
        loop = _Loop(model, detector, features_NTF, mirrored_NTF, targets, settings, seed)
        return loop.run(fit, held, stop_after)


@torch.no_grad()
def predict(fitted: FittedHead, inputs_NTP: Tensor, index: Index) -> tuple[Tensor, Tensor, Tensor]:
    """Return class logits and decoded spans of some windows. Shapes: [M, C], start [M], end [M]."""
    return _predict(fitted.model, inputs_NTP, _tensor(index, inputs_NTP))[:3]


class _Loop:
    """The epochs of one fit."""

    def __init__(
        self,
        model: Detector | EncoderDetector,
        detector: Detector,
        inputs_NTP: Tensor,
        mirrored_NTP: Tensor | None,
        targets: Targets,
        settings: HeadSettings,
        seed: int,
    ) -> None:
        self.model, self.detector, self.inputs, self.targets = model, detector, inputs_NTP, targets
        self.mirrored = mirrored_NTP if settings.mirror else None
        self.settings, self.draws = settings, seeded_generator(seed, DRAWS)
        self.encoder = model.encoder if isinstance(model, EncoderDetector) else None

    def run(self, fit: Index, held: Index, stop_after: int | None) -> FittedHead:
        settings, history = self.settings, []
        fit_M, held_M = _tensor(fit, self.inputs), _tensor(held, self.inputs)
        # Noise is a share of each input's own spread on the windows that are fitted.
        self.noise_P = settings.jitter_sigma * self.inputs[fit_M].std(dim=(0, 1), correction=0)
        optimizer, schedule = self._optimizer(math.ceil(len(fit_M) / settings.batch_size) * settings.epochs)
        first = 0 if self.encoder is None else settings.unfreeze_at  # of the epochs of which one may be kept
        best_epoch, best_nll, best_state = first - 1, math.inf, self._state()
        for epoch in range(_num_epochs(settings, stop_after)):
            scores = {"train_loss": self._epoch(epoch, fit_M, optimizer, schedule)}
            history.append(scores)
            if len(held_M) == 0:
                best_epoch = epoch
                continue
            scores |= self._score(held_M)
            if epoch < first:
                continue
            if scores["held_nll"] < best_nll:
                best_epoch, best_nll, best_state = epoch, scores["held_nll"], self._state()
            elif epoch - best_epoch >= settings.patience:
                break
        if len(held_M):
            self.model.load_state_dict(best_state)
        self.model.eval().requires_grad_(True)
        return FittedHead(self.model, best_epoch, *_predict(self.model, self.inputs, held_M)[:3], history)

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def _optimizer(self, total: int) -> tuple[AdamW, Callable[[], None]]:
        settings, groups = self.settings, list[dict[str, Any]]()
        for module, lr in ((self.detector, settings.lr), (self.encoder, settings.encoder_lr)):
            for matrices in (True, False):
                params = [p for p in module.parameters() if (p.ndim >= 2) == matrices] if module else []
                if params:
                    groups.append({"params": params, "lr": lr, "weight_decay": settings.weight_decay * matrices})
        optimizer = AdamW(groups)

        def factor(step: int) -> float:
            cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, total)))
            return min(1.0, (step + 1) / WARMUP_STEPS) * (FINAL_FRACTION + (1 - FINAL_FRACTION) * cosine)

        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor).step

    def _epoch(self, epoch: int, fit_M: Tensor, optimizer: AdamW, schedule: Callable[[], None]) -> float:
        settings = self.settings
        self.model.train()
        if self.encoder is not None:
            unfrozen = epoch >= settings.unfreeze_at
            self.encoder.requires_grad_(unfrozen).train(unfrozen)
        total = 0.0
        for index_B in self._order(fit_M).split(settings.batch_size):
            label_B, span = self.targets.at(index_B)
            output = self.model(self._augmented(index_B), span)
            loss = self.detector.combined(self.detector.losses(output, label_B, span, settings.gamma))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
            optimizer.step()
            schedule()
            total += float(loss.detach()) * len(index_B)
        if not math.isfinite(total):
            raise TrainingError(
                f"fine-tuning's loss is {total} in epoch {epoch}; try a lower optimizer.lr (or finetune.head_lr) than "
                f"{settings.lr:g}, and look for inputs that are not finite"
            )
        return total / len(fit_M)

    def _order(self, fit_M: Tensor) -> Tensor:
        """Return an epoch's windows: each once, or as many drawn with equal chances of the classes."""
        if self.settings.class_balanced:
            label_M = self.targets.label[fit_M].cpu()
            weight_M = 1.0 / torch.bincount(label_M).double()[label_M]
            order = torch.multinomial(weight_M, len(fit_M), replacement=True, generator=self.draws)
        else:
            order = torch.randperm(len(fit_M), generator=self.draws)
        return fit_M[order.to(fit_M.device)]

    def _augmented(self, index_B: Tensor) -> Tensor:
        x_BTP = self.inputs[index_B]
        if self.mirrored is not None:
            flip_B = (torch.rand(len(index_B), generator=self.draws) < 0.5).to(x_BTP.device)
            x_BTP[flip_B] = self.mirrored[index_B[flip_B]]
        if self.settings.jitter_sigma > 0:
            noise_BTP = torch.randn(x_BTP.shape, generator=self.draws).to(x_BTP.device)
            x_BTP.addcmul_(noise_BTP, self.noise_P)
        return x_BTP

    @torch.no_grad()
    def _score(self, held_M: Tensor) -> dict[str, float]:
        logits_MC, start_M, end_M, pointer_loss_M = _predict(self.model, self.inputs, held_M, self.targets)
        label_M, (true_start_M, true_end_M) = self.targets.at(held_M)
        class_nll = float(functional.cross_entropy(logits_MC, label_M))
        near_M = (start_M + end_M - true_start_M - true_end_M).abs() <= 2 * HIT_BARS
        return {
            "held_nll": class_nll + float(pointer_loss_M.mean()),
            "held_class_nll": class_nll,
            "held_f1_macro": _f1_macro(label_M, logits_MC.argmax(1)),
            "held_joint_at_3": float((near_M & (logits_MC.argmax(1) == label_M)).float().mean()),
        }


@torch.no_grad()
def _predict(
    model: Detector | EncoderDetector, inputs_NTP: Tensor, index_M: Tensor, targets: Targets | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return class logits, start, end, and the pointers' loss where targets are given. Shapes: [M, C], [M] each."""
    detector = model.detector if isinstance(model, EncoderDetector) else model
    model.eval()
    parts = []
    for index_B in index_M.split(CHUNK):
        output = model(inputs_NTP[index_B])
        loss_B = detector.head.pointer_loss(output, *targets.at(index_B)[1]) if targets else torch.zeros(len(index_B))
        parts.append((output.class_logits, *detector.decode(output), loss_B))
    logits, start, end, loss = (torch.cat(column) for column in zip(*parts, strict=True))
    return logits, start, end, loss


def _f1_macro(label_M: Tensor, guess_M: Tensor) -> float:
    """Return the mean F1 over the classes that are there or guessed."""
    f1 = [
        2 * int(((label_M == c) & (guess_M == c)).sum()) / int((label_M == c).sum() + (guess_M == c).sum())
        for c in torch.cat([label_M, guess_M]).unique()
    ]
    return sum(f1) / len(f1)


def _num_epochs(settings: HeadSettings, stop_after: int | None) -> int:
    return min(settings.epochs, stop_after or settings.epochs)


def _targets(label_N: np.ndarray, start_N: np.ndarray, end_N: np.ndarray, device: torch.device) -> Targets:
    columns = (torch.as_tensor(np.asarray(x), dtype=torch.int64, device=device) for x in (label_N, start_N, end_N))
    return Targets(*columns)


def _lengths(targets: Targets, fit: Index) -> tuple[int, int]:
    length_M = (targets.end - targets.start + 1).cpu()[torch.as_tensor(np.asarray(fit))]
    return int(length_M.min()), int(length_M.max())


def _tensor(index: Index, like: Tensor) -> Tensor:
    return torch.as_tensor(np.asarray(index, dtype=np.int64), device=like.device)


def _torch_seed(seed: int) -> int:
    return int(torch.randint(2**62, (), generator=seeded_generator(seed, WEIGHTS)))


def _cuda(tensor: Tensor) -> list[torch.device]:
    return [tensor.device] if tensor.device.type == "cuda" else []
