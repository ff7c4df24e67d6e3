"""The prior reader in cross-validation and in the final fit. It has no epochs and chooses nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moola_mlflow.core import UserError
from moola_mlflow.evaluation.crossval import FoldOutcome
from moola_mlflow.evaluation.folds import NestedFold
from moola_mlflow.labels import Targets
from moola_mlflow.models import Detector, Encoder, Prior, SpanLabels, apply_temperature, fit_prior_reader, members_of
from moola_mlflow.training import HeadInputs

CHUNK = 256


@dataclass(frozen=True)
class PriorMethod:
    """The prior reader on the cached encodings of one encoder, or of several side by side.

    It is fitted on all training windows of a fold. No held-out windows are needed, because there is no epoch and no
    temperature to choose.
    """

    name: str
    inputs: HeadInputs
    priors: tuple[Prior, ...]

    def fit(self, targets: Targets, index: np.ndarray) -> Detector:
        """Return a reader fitted on some windows and, if their encodings are given, on the same windows upside down."""
        rows = torch.as_tensor(index, device=self.inputs.values.device)
        labels = SpanLabels.of(targets.label, targets.start, targets.end).at(index)
        turned = None if self.inputs.mirrored is None else self.inputs.mirrored[rows]
        return fit_prior_reader(self.priors, self.inputs.values[rows], labels, targets.num_classes, mirrored_NTD=turned)

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        return read_windows(self.fit(targets, fold.train), self.inputs.values, fold.test)


@torch.no_grad()
def read_windows(reader: Detector, values_NTP: Tensor, test: np.ndarray) -> FoldOutcome:
    """Return what a fitted reader on the CPU says of the test windows, without a temperature."""
    parts = []
    for index in np.array_split(test, -(-len(test) // CHUNK)):
        rows = torch.as_tensor(index, device=values_NTP.device)
        output = reader(values_NTP[rows].float().cpu())
        parts.append((output.class_logits, *reader.decode(output)))
    logits, start, end = (torch.cat(column).numpy(force=True) for column in zip(*parts, strict=True))
    probability = apply_temperature(logits, 1.0)
    return FoldOutcome(probability, probability, np.stack([start, end], 1))


def has_priors(encoder: Encoder | None) -> bool:
    """Return whether an encoder, or each member of an ensemble, has the heads of the rules that trained it."""
    return encoder is not None and all(member.task_heads is not None for member in members_of(encoder))


def priors_of(encoder: Encoder) -> tuple[Prior, ...]:
    """Return the prior of each member of an encoder. Raises: UserError for a member without task heads."""
    heads = [member.task_heads for member in members_of(encoder)]
    if any(one is None for one in heads):
        raise UserError(
            "finetune.reader=prior needs encoders with task heads, which the objective rules trains "
            "(configs/rules.yaml); give such encoders, or set finetune.reader=head"
        )
    return tuple(Prior.of(one) for one in heads if one is not None)
