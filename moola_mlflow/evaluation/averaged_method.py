"""The average of the prior reader and two span heads, in cross-validation and in the final fit.

No window is held out: the span heads train for all epochs, and the average needs no temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from moola_mlflow.evaluation.crossval import FoldOutcome
from moola_mlflow.evaluation.folds import NestedFold
from moola_mlflow.evaluation.prior_method import PriorMethod, read_windows
from moola_mlflow.labels import Targets
from moola_mlflow.models import AVERAGED, AveragedHead, Detector, Prior
from moola_mlflow.training import HeadInputs, HeadSettings, fit_head


@dataclass(frozen=True)
class AveragedMethod:
    """The prior reader and a span head on cached encodings, and a span head on price-path features.

    Shapes: encoding [N, T, D], price_path [N, T, K].
    """

    name: str
    encoding: HeadInputs
    price_path: HeadInputs
    priors: tuple[Prior, ...]
    settings: HeadSettings

    def fit(self, targets: Targets, index: np.ndarray, seed: int) -> Detector:
        """Return the three readers, fitted on some windows, as one detector on the CPU."""
        parts = (self.encoding, self.price_path)
        heads = [fit_head(inputs, targets, index, index[:0], self.settings, seed).model.cpu() for inputs in parts]
        num_inputs, num_steps = sum(inputs.values.shape[-1] for inputs in parts), self.encoding.values.shape[1]
        detector = Detector(AVERAGED, num_inputs, targets.num_classes, targets.span_lengths(index), num_steps)
        head = detector.head
        assert isinstance(head, AveragedHead)
        head.prior = PriorMethod(self.name, self.encoding, self.priors).fit(targets, index)
        head.encoding, head.price_path = (one for one in heads if isinstance(one, Detector))
        return detector.eval()

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        reader = self.fit(targets, fold.train, fold.fit_seed)
        inputs = torch.cat([self.encoding.values, self.price_path.values], -1)
        return read_windows(reader, inputs, fold.test)
