"""The prior reader: a linear span head that stays near the heads of the rules an encoder was pre-trained on.

Its pointers are the mean pointer of the rules plus a combination of the main directions in which the rules' pointers
differ. Its class layer is a softmax regression on the main directions of the rules' class layers. Further inputs, such
as hand-made features, have their own coefficients with the same kind of penalty.

Both fits are similar to ridge regression. L-BFGS solves them in a fraction of a second and starts from zero, so there
is no seed, no learning rate and no early stopping.

Shape legend: N windows, T steps, D encoding size, E further inputs, K rules, R directions, C classes,
Q = 3 * D pooled numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from moola_mlflow.core import TrainingError
from moola_mlflow.models.heads import Detector, pooling
from moola_mlflow.models.lbfgs import minimise
from moola_mlflow.models.task_heads import NUM_CLASSES, TaskHeads

RANK = 32
"""Number of main directions. 16 to 64 give the same scores."""
ITERATIONS = 80


@dataclass(frozen=True)
class Prior:
    """The mean and the main directions of the heads of the rules: where a new head is expected.

    Shapes: mean [2, D], pointers [R, 2, D], classes [R, Q].
    """

    mean: Tensor
    pointers: Tensor
    classes: Tensor

    @classmethod
    def of(cls, heads: TaskHeads, rank: int = RANK) -> Prior:
        """Return the prior. Each direction is as long as the spread of the heads along it."""
        num = len(heads.names)
        mean = heads.pointers.mean(0)
        pointers = _directions((heads.pointers - mean).flatten(1), rank, num)
        # A number added to all class logits of a rule changes nothing, so only differences between classes count.
        centred = (heads.classes - heads.classes.mean(1, keepdim=True)).flatten(0, 1)
        return cls(mean, pointers.unflatten(1, mean.shape), _directions(centred, rank, NUM_CLASSES * num))


def _directions(rows: Tensor, rank: int, num: int) -> Tensor:
    """Return the first right singular vectors of the rows, each times its singular value / sqrt(num)."""
    _, values, vectors = torch.linalg.svd(rows.double(), full_matrices=False)
    return (vectors[:rank] * (values[:rank, None] / num**0.5)).float()


@dataclass(frozen=True)
class SpanLabels:
    """The labels of windows. Shapes: label, start, end int64 [N]."""

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
    """Fit a reader on the encodings of labelled windows and, if given, of the same windows upside down.

    The encodings of several encoders are side by side. Each encoder then has its own reader, and the logits of the
    readers are averaged. Columns after the encodings are further inputs: every reader standardises them on these
    windows and reads them too. ``lengths`` is the range of span lengths that decoding allows, by default that of the
    labels.

    Shapes: encodings [N, T, D1 + D2 + ... + E], one prior for each part but the last.
    Raises: TrainingError if an encoding is not finite.
    """
    spans = labels.end - labels.start + 1
    lengths = lengths or (int(spans.min()), int(spans.max()))
    num = len(labels.label)
    h_NTD = encodings_NTD.float().cpu()
    if mirrored_NTD is not None:
        h_NTD, labels = torch.cat([h_NTD, mirrored_NTD.float().cpu()]), labels.twice()
    if not h_NTD.isfinite().all():
        raise TrainingError(
            "encodings hold numbers that are not finite; remove the windows that cause it, or give another encoder"
        )
    detector = Detector("linear", h_NTD.shape[-1], num_classes, lengths, h_NTD.shape[1])
    encoded = sum(prior.mean.shape[-1] for prior in priors)
    further_NTE = _standardised(detector, h_NTD, encoded)
    pointer_2D = torch.zeros(2, h_NTD.shape[-1])
    class_C3D = torch.zeros(num_classes, 3, h_NTD.shape[-1])
    bias_C = torch.zeros(num_classes)
    first = 0
    for prior in priors:
        part = slice(first, first + prior.mean.shape[-1])
        task = _Task(prior, h_NTD[..., part], further_NTE, labels, num, iterations)
        for columns, pointers_2D in zip((part, slice(encoded, None)), task.pointers(), strict=True):
            pointer_2D[:, columns] += pointers_2D / len(priors)
        *weights, own_bias_C = task.classes(num_classes)
        for columns, weight_CQ in zip((part, slice(encoded, None)), weights, strict=True):
            class_C3D[:, :, columns] += weight_CQ.unflatten(1, (3, -1)) / len(priors)
        bias_C += own_bias_C / len(priors)
        first = part.stop
    fitted = {"pointer.weight": pointer_2D, "classify.weight": class_C3D.flatten(1), "classify.bias": bias_C}
    detector.head.load_state_dict(fitted)
    return detector.eval()


def _standardised(detector: Detector, h_NTD: Tensor, encoded: int) -> Tensor:
    """Return the further inputs, z-scored as the detector does it. Encodings stay as they are. Shapes: [N, T, E]."""
    detector.fit_scaling(h_NTD)
    detector.mean[:encoded], detector.std[:encoded] = 0.0, 1.0
    return (h_NTD[..., encoded:] - detector.mean[encoded:]) / detector.std[encoded:]


@dataclass(frozen=True)
class _Task:
    """The encoding of one encoder, the further inputs, the labels and the prior: all that one reader is fitted on.

    Shapes: h_NTD, further_NTE. ``num`` counts the labelled windows: half of N if windows upside down were added.
    """

    prior: Prior
    h_NTD: Tensor
    further_NTE: Tensor
    labels: SpanLabels
    num: int
    iterations: int

    def pointers(self) -> tuple[Tensor, Tensor]:
        """Return the pointers of start and end: on the encoding g (mean + sum_r a_r V_r), on further inputs s b.

        They minimise CE(start) + CE(end) + (|a|^2 / 2 + |g - 1|^2 + |b|^2 / 2) / num.

        Shapes: [2, D], [2, E].
        """
        prior, further_NTE = self.prior, self.further_NTE
        mean_2NT = torch.einsum("ntd,jd->jnt", self.h_NTD, prior.mean)
        along_2NTR = torch.einsum("ntd,rjd->jntr", self.h_NTD, prior.pointers)
        target_2N = torch.stack([self.labels.start, self.labels.end])
        scale = _strength(along_2NTR, further_NTE)
        a_R, g_2, b_2E = torch.zeros(len(prior.pointers)), torch.ones(2), torch.zeros(2, further_NTE.shape[-1])

        def loss() -> Tensor:
            logits_2NT = (mean_2NT + along_2NTR @ a_R) * g_2[:, None, None]
            logits_2NT = logits_2NT + (further_NTE @ (scale * b_2E).T).permute(2, 0, 1)
            fit = functional.cross_entropy(logits_2NT.flatten(0, 1), target_2N.flatten()) * 2
            return fit + (a_R.square().sum() / 2 + (g_2 - 1).square().sum() + b_2E.square().sum() / 2) / self.num

        minimise([a_R, g_2, b_2E], loss, self.iterations)
        encoding_2D = (prior.mean + torch.einsum("r,rjd->jd", a_R, prior.pointers)) * g_2[:, None]
        return encoding_2D, scale * b_2E

    def classes(self, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights of the class layer on the pooled encoding and on the pooled further inputs, and its biases.

        This is a softmax regression with the penalty |w|^2 / num. Its inputs are the coordinates along the rules' class
        directions, centred and divided by one common scale, and the further inputs. For two classes the penalty is half
        the squared difference of their weights / (2 num), as in a logistic regression.

        Shapes: [C, Q], [C, 3 E], [C].
        """
        weight_N3T = pooling(self.labels.start, self.labels.end, self.h_NTD.shape[1])
        z_NR = (weight_N3T @ self.h_NTD).flatten(1) @ self.prior.classes.T
        further_NQ = (weight_N3T @ self.further_NTE).flatten(1)
        num_directions = z_NR.shape[1]
        scale_R = z_NR.std().clamp(min=1e-12).expand(num_directions)
        strength = _strength(z_NR / scale_R, further_NQ)
        z_NP, scale_P = torch.cat([z_NR, further_NQ], 1), torch.cat([scale_R, 1 / strength.expand(further_NQ.shape[1])])
        centre_P = z_NP.mean(0)
        z_NP = (z_NP - centre_P) / scale_P
        w_CP, b_C = torch.zeros(num_classes, z_NP.shape[1]), torch.zeros(num_classes)

        def loss() -> Tensor:
            fit = functional.cross_entropy(z_NP @ w_CP.T + b_C, self.labels.label)
            return fit + w_CP.square().sum() / self.num

        minimise([w_CP, b_C], loss, self.iterations)
        w_CP = w_CP / scale_P
        encoding_CR, further_CQ = w_CP.split([num_directions, further_NQ.shape[1]], 1)
        return encoding_CR @ self.prior.classes, further_CQ, b_C - w_CP @ centre_P


def _strength(directions: Tensor, further: Tensor) -> Tensor:
    """Return the factor that makes further inputs vary as much as the directions of the rules, on average.

    The penalty then treats them alike, on any scale of the rules' heads. With inputs of variance 1 Joint@3 was 0.005
    lower, the mean of 14 comparisons on development seeds.

    Shapes: [..., R], [..., E] -> [].
    """
    if not further.shape[-1]:
        return torch.ones(())
    wanted, own = (x.flatten(0, -2).var(0).mean() for x in (directions, further))
    return (wanted / own.clamp(min=1e-12)).sqrt()


@torch.no_grad()
def reader_loss(reader: Detector, encodings_NTD: Tensor, labels: SpanLabels) -> float:
    """Return the sum of the mean CE of start, end and class. The class is read at the decoded span."""
    output = reader(encodings_NTD.float().cpu())
    start_NT, end_NT = output.pointers
    pairs = ((start_NT, labels.start), (end_NT, labels.end), (output.class_logits, labels.label))
    return sum(float(functional.cross_entropy(logits, target)) for logits, target in pairs)
