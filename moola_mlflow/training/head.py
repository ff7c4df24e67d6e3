"""Fit a detector to labelled windows: a head on cached inputs, or an encoder and a head together.

The epoch is chosen on held windows. The caller says which windows are held, and which fold is scored afterwards.

Shape legend: N windows, M some of them, B windows of a batch, T steps, P inputs a step, C classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from moola_mlflow.core import TrainingError, seeded_generator
from moola_mlflow.labels import Targets
from moola_mlflow.models import HIT_BARS, Detector, Encoder, EncoderDetector, Output, Span
from moola_mlflow.training.optimizer import AdamW
from moola_mlflow.windows import mirrored as mirrored

Index = np.ndarray
"""Positions of windows, int64."""

# Purposes of seeds, so that no two streams share one.
WEIGHTS, DRAWS = 40, 41
CHUNK = 256
# A head has its own schedule: it trains a few hundred steps, and `schedule.*` counts whole epochs.
WARMUP_STEPS = 5
FINAL_FRACTION = 0.05


@dataclass(frozen=True)
class HeadSettings:
    """How a head is fitted."""

    epochs: int = 20
    """Length of the schedule; early stopping keeps the weights of the best epoch."""
    stop_after: int | None = None
    """Epochs of the schedule that are trained; None: all."""
    batch_size: int = 29
    lr: float = 4e-3
    weight_decay: float = 1e-2
    patience: int = 8
    """Epochs without a better held-out score after which fitting ends. Epochs with a frozen encoder do not count."""
    clip_norm: float = 1.0
    """Largest gradient norm."""
    gamma: float = 0.0
    """Exponent of the focal class loss; 0 is cross-entropy."""
    class_balanced: bool = False
    """Draw windows so that classes come up equally often."""
    jitter_sigma: float = 0.0
    """Gaussian noise on every input, in units of its standard deviation, in training only."""
    mirror: bool = True
    """Turn half of the windows upside down in training, if mirrored inputs are given."""
    head: str = "span"
    lengths: tuple[int, int] | None = None
    """Shortest and longest span that decoding allows; None: those of the windows that are fitted."""
    encoder_lr: float = 1e-4
    """Learning rate of an encoder that is trained on."""
    unfreeze_at: int = 0
    """Epoch at which the encoder is unfrozen; until then only the head trains, and no epoch is kept."""
    precision: str = "fp32"
    """With bf16 the encoder trains under autocast."""

    def num_epochs(self) -> int:
        """Return the number of epochs that are trained at most."""
        return min(self.epochs, self.stop_after or self.epochs)


@dataclass(frozen=True)
class HeadInputs:
    """The inputs of all windows, and those of the same windows upside down.

    Shapes: values and mirrored float32 [N, T, P]; mirrored is None if no window is turned upside down.
    """

    values: Tensor
    mirrored: Tensor | None = None


@dataclass(frozen=True)
class FittedHead:
    """A fitted detector and its predictions for the held windows; these are empty if no window was held."""

    model: Detector | EncoderDetector
    best_epoch: int
    """The epoch whose weights were kept, from 0."""
    held_logits: Tensor
    held_start: Tensor
    held_end: Tensor
    history: list[dict[str, float]]
    """One row an epoch: ``train_loss``, and on the held windows ``held_nll``, its class part ``held_class_nll``,
    ``held_f1_macro`` and ``held_joint_at_3``."""


def fit_head(
    inputs: HeadInputs, targets: Targets, fit: Index, held: Index, settings: HeadSettings, seed: int
) -> FittedHead:
    """Fit a head on cached inputs. What made the inputs gets no gradient.

    The epoch kept has the lowest joint negative log-likelihood on the ``held`` windows: class at the decoded span,
    plus start and end. Joint@3 of 30 windows moves in steps too coarse to choose by. If no window is held, the last
    epoch is kept.

    The same seed and the same threads give the same weights. torch's global generator is left as it was.
    """
    values_NTP = inputs.values.detach()
    device, num_steps, num_inputs = values_NTP.device, *values_NTP.shape[1:]
    with _seeded(seed, device):
        lengths = settings.lengths or targets.span_lengths(fit)
        detector = Detector(settings.head, num_inputs, targets.num_classes, lengths, num_steps).to(device)
        detector.fit_scaling(values_NTP[_tensor(fit, device)])
        return _Fit(detector, HeadInputs(values_NTP, inputs.mirrored), targets, settings, seed).run(fit, held)


def fit_detector(
    encoder: Encoder,
    features: HeadInputs,
    targets: Targets,
    fit: Index,
    held: Index,
    settings: HeadSettings,
    seed: int,
) -> FittedHead:
    """Fit a head and train a copy of the encoder with it, from epoch ``settings.unfreeze_at`` on.

    The rest is as in :func:`fit_head`, but only an epoch that trained the encoder can be kept: an earlier one would
    return the encoder unchanged.

    Shapes: features [N, T, F + K]: first the encoder's raw features, then K inputs that go to the head as they are.
    Raises: ValueError if fitting would end before ``settings.unfreeze_at``.
    """
    if (epochs := settings.num_epochs()) <= settings.unfreeze_at:
        raise ValueError(
            f"unfreeze_at={settings.unfreeze_at}, but the last epoch is {epochs - 1}, counted from 0: the encoder "
            f"would stay as it is; allowed: 0 to {epochs - 1}, or more epochs, or fit_head on its encodings"
        )
    values_NTP = features.values
    device, num_steps, num_features = values_NTP.device, *values_NTP.shape[1:]
    with _seeded(seed, device):
        encoder = copy.deepcopy(encoder).to(device).eval()
        num_inputs = encoder.output_size + num_features - encoder.input_size
        lengths = settings.lengths or targets.span_lengths(fit)
        detector = Detector(settings.head, num_inputs, targets.num_classes, lengths, num_steps).to(device)
        model = EncoderDetector(encoder, detector, settings.precision)
        with torch.no_grad():
            chunks = _tensor(fit, device).split(CHUNK)
            detector.fit_scaling(torch.cat([model.read(values_NTP[index_B]) for index_B in chunks]))
        return _Fit(model, features, targets, settings, seed).run(fit, held)


@torch.no_grad()
def predict(fitted: FittedHead, values_NTP: Tensor, index: Index) -> tuple[Tensor, Tensor, Tensor]:
    """Return class logits and decoded spans of some windows. Shapes: logits [M, C], start [M], end [M]."""
    outputs = _outputs(fitted.model, values_NTP, _tensor(index, values_NTP.device))
    columns = ((output.class_logits, *_detector(fitted.model).decode(output)) for output in outputs)
    logits_MC, start_M, end_M = (torch.cat(column) for column in zip(*columns, strict=True))
    return logits_MC, start_M, end_M


class _Fit:
    """One fit, epoch by epoch."""

    def __init__(
        self,
        model: Detector | EncoderDetector,
        inputs: HeadInputs,
        targets: Targets,
        settings: HeadSettings,
        seed: int,
    ) -> None:
        self.model, self.detector, self.settings = model, _detector(model), settings
        self.encoder = model.encoder if isinstance(model, EncoderDetector) else None
        self.values_NTP = inputs.values
        self.mirrored_NTP = inputs.mirrored if settings.mirror else None
        device = inputs.values.device
        self.label_N, self.start_N, self.end_N = (
            _tensor(column, device) for column in (targets.label, targets.start, targets.end)
        )
        self.draws = seeded_generator(seed, DRAWS)

    def run(self, fit: Index, held: Index) -> FittedHead:
        """Train on the ``fit`` windows and keep the epoch that does best on the ``held`` ones."""
        settings, history = self.settings, list[dict[str, float]]()
        fit_M, held_M = _tensor(fit, self.values_NTP.device), _tensor(held, self.values_NTP.device)
        # Noise is a share of each input's own spread over the windows that are fitted.
        self.noise_P = settings.jitter_sigma * self.values_NTP[fit_M].std(dim=(0, 1), correction=0)
        optimizer, next_rate = self._optimizer(math.ceil(len(fit_M) / settings.batch_size) * settings.epochs)
        first = 0 if self.encoder is None else settings.unfreeze_at  # epoch that may be kept
        best_epoch, best_nll, best_weights = first - 1, math.inf, self._weights()
        for epoch in range(settings.num_epochs()):
            scores = {"train_loss": self._epoch(epoch, fit_M, optimizer, next_rate)}
            history.append(scores)
            if len(held_M) == 0:
                best_epoch = epoch
                continue
            scores |= self._score(held_M)
            if epoch < first:
                continue
            if scores["held_nll"] < best_nll:
                best_epoch, best_nll, best_weights = epoch, scores["held_nll"], self._weights()
            elif epoch - best_epoch >= settings.patience:
                break
        if len(held_M):
            self.model.load_state_dict(best_weights)
        self.model.eval().requires_grad_(True)
        return FittedHead(self.model, best_epoch, *self._predict(held_M)[:3], history)

    def _epoch(self, epoch: int, fit_M: Tensor, optimizer: AdamW, next_rate: Callable[[], None]) -> float:
        """Train one epoch and return its mean loss."""
        settings = self.settings
        self.model.train()
        if self.encoder is not None:
            unfrozen = epoch >= settings.unfreeze_at
            self.encoder.requires_grad_(unfrozen).train(unfrozen)
        total = 0.0
        for index_B in self._order(fit_M).split(settings.batch_size):
            label_B, span = self.label_N[index_B], self._span(index_B)
            output = self.model(self._augmented(index_B), span)
            loss = self.detector.combined(self.detector.losses(output, label_B, span, settings.gamma))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
            optimizer.step()
            next_rate()
            total += float(loss.detach()) * len(index_B)
        if not math.isfinite(total):
            raise TrainingError(
                f"fine-tuning's loss is {total} in epoch {epoch + 1}; try a lower optimizer.lr (or finetune.head_lr) "
                f"than {settings.lr:g}, and look for inputs that are not finite"
            )
        return total / len(fit_M)

    def _order(self, fit_M: Tensor) -> Tensor:
        """Return the windows of an epoch: each once, or as many drawn with equal chances of the classes."""
        if self.settings.class_balanced:
            label_M = self.label_N[fit_M].cpu()
            weight_M = 1.0 / torch.bincount(label_M).double()[label_M]
            order_M = torch.multinomial(weight_M, len(fit_M), replacement=True, generator=self.draws)
        else:
            order_M = torch.randperm(len(fit_M), generator=self.draws)
        return fit_M[order_M.to(fit_M.device)]

    def _augmented(self, index_B: Tensor) -> Tensor:
        """Return the inputs of a batch, half of the windows upside down, with noise. Shapes: [B, T, P]."""
        x_BTP = self.values_NTP[index_B]
        if self.mirrored_NTP is not None:
            flip_B = (torch.rand(len(index_B), generator=self.draws) < 0.5).to(x_BTP.device)
            x_BTP[flip_B] = self.mirrored_NTP[index_B[flip_B]]
        if self.settings.jitter_sigma > 0:
            noise_BTP = torch.randn(x_BTP.shape, generator=self.draws).to(x_BTP.device)
            x_BTP.addcmul_(noise_BTP, self.noise_P)
        return x_BTP

    @torch.no_grad()
    def _score(self, held_M: Tensor) -> dict[str, float]:
        """Return the losses and scores of the held windows."""
        logits_MC, start_M, end_M, pointer_loss_M = self._predict(held_M)
        label_M, (true_start_M, true_end_M) = self.label_N[held_M], self._span(held_M)
        class_nll = float(functional.cross_entropy(logits_MC, label_M))
        near_M = (start_M + end_M - true_start_M - true_end_M).abs() <= 2 * HIT_BARS
        return {
            "held_nll": class_nll + float(pointer_loss_M.mean()),
            "held_class_nll": class_nll,
            "held_f1_macro": _f1_macro(label_M, logits_MC.argmax(1)),
            "held_joint_at_3": float((near_M & (logits_MC.argmax(1) == label_M)).float().mean()),
        }

    @torch.no_grad()
    def _predict(self, index_M: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return class logits, start, end and pointer loss of some windows. Shapes: [M, C], [M] each."""
        outputs = _outputs(self.model, self.values_NTP, index_M)
        columns = [
            (
                output.class_logits,
                *self.detector.decode(output),
                self.detector.head.pointer_loss(output, *self._span(at)),
            )
            for output, at in zip(outputs, index_M.split(CHUNK), strict=True)
        ]
        logits_MC, start_M, end_M, loss_M = (torch.cat(column) for column in zip(*columns, strict=True))
        return logits_MC, start_M, end_M, loss_M

    def _span(self, index_B: Tensor) -> Span:
        return self.start_N[index_B], self.end_N[index_B]

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def _optimizer(self, total: int) -> tuple[AdamW, Callable[[], None]]:
        """Return the optimiser, and what sets the learning rate of the next of ``total`` steps."""
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


def _outputs(model: Detector | EncoderDetector, values_NTP: Tensor, index_M: Tensor) -> list[Output]:
    """Return the model's output for some windows, chunk by chunk."""
    model.eval()
    return [model(values_NTP[index_B]) for index_B in index_M.split(CHUNK)]


def _f1_macro(label_M: Tensor, guess_M: Tensor) -> float:
    """Return the mean F1 over the classes that occur or are guessed."""
    f1 = [
        2 * int(((label_M == c) & (guess_M == c)).sum()) / int((label_M == c).sum() + (guess_M == c).sum())
        for c in torch.cat([label_M, guess_M]).unique()
    ]
    return sum(f1) / len(f1)


def _detector(model: Detector | EncoderDetector) -> Detector:
    return model.detector if isinstance(model, EncoderDetector) else model


def _tensor(index: Index, device: torch.device) -> Tensor:
    return torch.as_tensor(np.asarray(index, dtype=np.int64), device=device)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator inside, and leave it as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**62, (), generator=seeded_generator(seed, WEIGHTS))))
        yield
