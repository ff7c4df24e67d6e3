"""Scores of a model in training on the parts of a split, pictures of its predictions, and the leak check.

Shape legend: N windows, T steps, D encoding size, K targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from moola_mlflow.core import BASELINE_FIT, EVALUATION, LEAK, PICTURES
from moola_mlflow.models import Encoder, Errors, leak
from moola_mlflow.training.engine import Engine
from moola_mlflow.windows import Batch, BatchSource, Split

EVALUATION_BATCH = 256
LEAK_WINDOWS = 64
"""Each goes through the encoder eight times: in two precisions, in evaluation and in training mode, twice."""


@dataclass(frozen=True)
class Passes:
    """The batches of some windows, to iterate over several times: a sum of objectives fits part after part."""

    source: BatchSource
    index: np.ndarray

    def __iter__(self) -> Iterator[Batch]:
        return self.source.batches(self.index, EVALUATION_BATCH)


class Evaluation:
    """Scores the model of an engine. Masks come from fixed seeds, so all epochs are scored on the same steps."""

    def __init__(
        self, engine: Engine, source: BatchSource, split: Split, generator: Callable[..., torch.Generator]
    ) -> None:
        self.engine, self.model, self.generator = engine, engine.model, generator
        self.source, self.split = source, split
        self._baselines: dict[str, dict[str, Errors]] = {}

    @torch.no_grad()
    def scores(self, part: str) -> dict[str, float]:
        """Return the scores of a part of the split, on masks drawn from a fixed seed.

        They are loss, huber, mae (raw feature units), loss_profiled, skill, skill_<group>, sigma if it is learned,
        mae_<target> and skill_<target>.
        """
        objective = self.model.eval().objective
        draws = self.generator(EVALUATION, part == "test")
        needs_baselines = part not in self._baselines
        total: Errors | None = None
        baselines: dict[str, Errors] = {}
        for batch in self.source.batches(getattr(self.split, part), EVALUATION_BATCH):
            errors, by_baseline = self.engine.evaluate(batch, draws, needs_baselines)
            total = errors if total is None else total + errors
            for name, baseline in by_baseline.items():
                baselines[name] = baselines[name] + baseline if name in baselines else baseline
        assert total is not None, "a split is never empty"
        if needs_baselines:
            self._baselines[part] = baselines
        huber = objective.huber(total)
        skill = objective.skills(total, self._baselines[part])
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
    def further_scores(self, other: Encoder | None = None) -> dict[str, float]:
        """Return the objective's further scores of the model, or of another encoder with its task heads.

        They have their metric names, and come from validation windows.
        """
        model = self.model.eval()
        encoder, heads = (other, other.task_heads) if other else (model.encoder, model.objective.task_heads())
        with self.engine.autocast():
            return model.objective.epoch_scores(encoder, heads, Passes(self.source, self.split.val))

    @torch.no_grad()
    def reconstruct(self, num_windows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return prediction, target and loss positions of validation windows, the same windows on every call.

        Shapes: [N, T, K] each. Units: the objective's reporting units.
        """
        model = self.model.eval()
        order = self.split.val[np.linspace(0, len(self.split.val) - 1, num_windows).astype(int)]
        batch = next(iter(self.source.batches(order, num_windows)))
        draws = self.generator(PICTURES)
        drawn = model.objective.draw(batch, draws)
        with self.engine.autocast():
            h_BTD = model.encoder.encode(model.objective.encoder_input(model.encoder, batch, drawn, draws))
            predicted_NTK, target_NTK, where_NTK = model.objective.shown(model.encoder, h_BTD, batch, drawn)
        # numpy has no bf16.
        return predicted_NTK.float().cpu().numpy(), target_NTK.float().cpu().numpy(), where_NTK.cpu().numpy()

    def baseline_hubers(self, part: str) -> dict[str, float]:
        """Return the Huber of each baseline on a part that was scored before."""
        return {name: float(errors.huber()) for name, errors in self._baselines[part].items()}

    def fit_baselines(self) -> None:
        """Fit the objective's targets and then its baselines on the training windows."""
        objective, batches = self.model.objective, Passes(self.source, self.split.train)
        with torch.no_grad():
            objective.fit_targets(batches)
            objective.fit_baselines(self.model.encoder, batches, self.generator(BASELINE_FIT))

    def leak(self) -> float:
        """Return how far validation encodings move if the input at hidden steps is replaced by noise."""
        batch = next(iter(self.source.batches(self.split.val[:LEAK_WINDOWS], LEAK_WINDOWS)))
        model, measured = self.model, []
        for context in (self.engine.autocast, nullcontext):  # a leak that bf16 rounds away is still a leak
            with context():
                measured.append(leak(model.objective, model.encoder, batch, lambda: self.generator(LEAK)))
        return max(measured)
