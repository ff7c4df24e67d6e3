"""The prior reader: a linear span head that stays near the heads of the rules an encoder was pre-trained on.

Its pointers are the rules' mean pointer plus a combination of the main directions in which the rules' pointers
differ; its class layer is a softmax regression on the main directions of the rules' class layers. Both fits are
ridge-like problems that L-BFGS solves in a fraction of a second, from zero: there is no seed, no learning rate and no
early stopping.

Shape legend: N windows, T steps, D encoding size, K rules, R directions, C classes, Q = 3 * D pooled numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from moola_mlflow.core import TrainingError
from moola_mlflow.models.heads import Detector, pooling
from moola_mlflow.models.task_heads import NUM_CLASSES, TaskHeads

RANK = 32
"""Directions that are kept; 16 to 64 score alike."""
ITERATIONS = 80


@dataclass(frozen=True)
class Prior:
    """Where pointers and class layers are expected, from the heads of the rules.

    Shapes: mean [2, D], pointers [R, 2, D], classes [R, Q].
    """

    mean: Tensor
    pointers: Tensor
    classes: Tensor

    @classmethod
    def of(cls, heads: TaskHeads, rank: int = RANK) -> Prior:
        """Return mean and main directions; each direction is as long as the heads' spread along it."""
        num = len(heads.names)
        mean = heads.pointers.mean(0)
        pointers = _directions((heads.pointers - mean).flatten(1), rank, num)
        # Adding one number to all class logits of a rule changes nothing: only differences between classes count.
        centred = (heads.classes - heads.classes.mean(1, keepdim=True)).flatten(0, 1)
        return cls(mean, pointers.unflatten(1, mean.shape), _directions(centred, rank, NUM_CLASSES * num))


def _directions(rows: Tensor, rank: int, num: int) -> Tensor:
    """Return the first right singular vectors of some rows, each times its singular value / sqrt(num)."""
    _, values, vectors = torch.linalg.svd(rows.double(), full_matrices=False)
    return (vectors[:rank] * (values[:rank, None] / num**0.5)).float()


@dataclass(frozen=True)
class SpanLabels:
    """What windows are labelled with. Shapes: label, start, end int64 [N]."""

    label: Tensor
    start: Tensor
    end: Tensor

    @classmethod
    def of(cls, label: np.ndarray, start: np.ndarray, end: np.ndarray) -> SpanLabels:
        """Return labels as tensors."""
        return cls(*(torch.as_tensor(np.asarray(x), dtype=torch.int64) for x in (label, start, end)))

    def at(self, index: np.ndarray) -> SpanLabels:
        """Return the labels of some windows."""
        rows = torch.as_tensor(index)
        return SpanLabels(self.label[rows], self.start[rows], self.end[rows])

    def twice(self) -> SpanLabels:
        """Return the labels of the windows and of the same windows upside down."""
        return SpanLabels(self.label.repeat(2), self.start.repeat(2), self.end.repeat(2))


@torch.no_grad()
def fit_prior_reader(
    priors: Sequence[Prior],
    encodings_NTD: Tensor,
    labels: SpanLabels,
    num_classes: int,
    lengths: tuple[int, int] | None = None,
    mirrored_NTD: Tensor | None = None,
    iterations: int = ITERATIONS,
) -> Detector:
    """Fit a reader on the encodings of labelled windows and, where given, of the same windows upside down.

    Of several encoders, whose encodings lie side by side, one reader each is fitted and their logits are averaged.
    ``lengths`` is the range of span lengths that decoding allows, by default that of the labels.

    Shapes: encodings [N, T, D1 + D2 + ...], one prior for each part.
    Raises: TrainingError where an encoding is not finite.
    """
    spans = labels.end - labels.start + 1
    lengths = lengths or (int(spans.min()), int(spans.max()))
    num = len(labels.label)
    h_NTD = encodings_NTD.float().cpu()
    if mirrored_NTD is not None:
        h_NTD, labels = torch.cat([h_NTD, mirrored_NTD.float().cpu()]), labels.twice()
    if not h_NTD.isfinite().all():
        raise TrainingError("encodings are not finite; look for windows that make them so, or take another encoder")
    detector = Detector("linear", h_NTD.shape[-1], num_classes, lengths, h_NTD.shape[1])
    head = detector.head
    pointer_2D = torch.zeros(2, h_NTD.shape[-1])
    class_C3D = torch.zeros(num_classes, 3, h_NTD.shape[-1])
    bias_C = torch.zeros(num_classes)
    first = 0
    for prior in priors:
        part = slice(first, first + prior.mean.shape[-1])
        own = h_NTD[..., part]
        pointer_2D[:, part] = _fit_pointers(prior, own, labels, num, iterations) / len(priors)
        weight_CQ, own_bias_C = _fit_classes(prior, own, labels, num_classes, num, iterations)
        class_C3D[:, :, part] = weight_CQ.unflatten(1, (3, -1)) / len(priors)
        bias_C += own_bias_C / len(priors)
        first = part.stop
    fitted = {"pointer.weight": pointer_2D, "classify.weight": class_C3D.flatten(1), "classify.bias": bias_C}
    head.load_state_dict(fitted)
    return detector.eval()


def _fit_pointers(prior: Prior, h_NTD: Tensor, labels: SpanLabels, num: int, iterations: int) -> Tensor:
    """Return start and end pointer g (mean + sum_r a_r V_r). Shapes: [2, D].

    Least: CE(start) + CE(end) + (|a|^2 / 2 + |g - 1|^2) / num, num labelled windows.
    """
    mean_2NT = torch.einsum("ntd,jd->jnt", h_NTD, prior.mean)
    along_2NTR = torch.einsum("ntd,rjd->jntr", h_NTD, prior.pointers)
    target_2N = torch.stack([labels.start, labels.end])
    a_R, g_2 = torch.zeros(len(prior.pointers)), torch.ones(2)

    def loss() -> Tensor:
        logits_2NT = (mean_2NT + along_2NTR @ a_R) * g_2[:, None, None]
        fit = functional.cross_entropy(logits_2NT.flatten(0, 1), target_2N.flatten()) * 2
        return fit + (a_R.square().sum() / 2 + (g_2 - 1).square().sum()) / num

    _minimise([a_R, g_2], loss, iterations)
    return (prior.mean + torch.einsum("r,rjd->jd", a_R, prior.pointers)) * g_2[:, None]


def _fit_classes(
    prior: Prior, h_NTD: Tensor, labels: SpanLabels, num_classes: int, num: int, iterations: int
) -> tuple[Tensor, Tensor]:
    """Return weights and biases of the class layer on the pooled encoding. Shapes: [C, Q], [C].

    Softmax regression on the coordinates along the rules' class directions, centred and of one common scale, with
    |w|^2 / num: of two classes that is half a squared difference of weights / (2 num), as in a logistic regression.
    """
    pooled_NQ = (pooling(labels.start, labels.end, h_NTD.shape[1]) @ h_NTD).flatten(1)
    z_NR = pooled_NQ @ prior.classes.T
    centre_R, scale = z_NR.mean(0), z_NR.std().clamp(min=1e-12)
    z_NR = (z_NR - centre_R) / scale
    w_CR, b_C = torch.zeros(num_classes, len(prior.classes)), torch.zeros(num_classes)

    def loss() -> Tensor:
        return functional.cross_entropy(z_NR @ w_CR.T + b_C, labels.label) + w_CR.square().sum() / num

    _minimise([w_CR, b_C], loss, iterations)
    w_CR = w_CR / scale
    return w_CR @ prior.classes, b_C - w_CR @ centre_R


def _minimise(parameters: list[Tensor], loss: Callable[[], Tensor], iterations: int) -> None:
    """Change the parameters in place to where the loss is least."""
    optimizer = torch.optim.LBFGS(parameters, lr=1, max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = loss()
            value.backward()
        return float(value.detach())

    for parameter in parameters:
        parameter.requires_grad_()
    optimizer.step(closure)
    for parameter in parameters:
        parameter.requires_grad_(False)


@torch.no_grad()
def reader_loss(reader: Detector, encodings_NTD: Tensor, labels: SpanLabels) -> float:
    """Return the mean CE of start, end and class (read at the decoded span) of labelled windows, summed."""
    output = reader(encodings_NTD.float().cpu())
    start_NT, end_NT = output.pointers
    pairs = ((start_NT, labels.start), (end_NT, labels.end), (output.class_logits, labels.label))
    return sum(float(functional.cross_entropy(logits, target)) for logits, target in pairs)
