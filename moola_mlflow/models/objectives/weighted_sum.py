"""A weighted sum of objectives: each part has its own input and its own encodings, from one encoder.

Shape legend: B windows, T steps, F features, D encoding size, K targets, P parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moola_mlflow.core import current_name
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.objectives.base import Errors, Objective
from moola_mlflow.models.task_heads import TaskHeads
from moola_mlflow.windows import Batch


class WeightedSum(Objective):
    """Objectives trained together: the loss is the sum of weight * loss.

    The inputs of the parts are concatenated along the batch, so the encoder runs once for all. What one part hides
    another may see. The Huber that chooses the epoch is the weighted mean of the parts' Hubers. Targets and groups are
    those of the parts; if two parts share a name, the part's name is put before it. Each part is a group too.

    Shapes: drawn int64 [B, ...], what each part draws, part after part; encodings [P * B, T, D], part after part.
    """

    def __init__(self, terms: Mapping[str, tuple[float, Objective]]) -> None:
        super().__init__()
        self.weights = {name: weight for name, (weight, _) in terms.items()}
        self.terms = nn.ModuleDict({name: part for name, (_, part) in terms.items()})
        self.identity = any(part.identity for part in self.parts())
        self.per_step = all(part.per_step for part in self.parts())
        self.checks_leak = any(part.checks_leak for part in self.parts())
        used = Counter(name for part in self.parts() for name in {*part.targets, *part.groups})
        used.update(self.weights)
        self.renamed = {
            name: {inner: f"{name}_{inner}" if used[inner] > 1 else inner for inner in (*part.targets, *part.groups)}
            for name, part in self._named()
        }
        self.columns: dict[str, slice] = {}
        self.groups, targets = {}, list[str]()
        for name, part in self._named():
            first, inner = len(targets), self.renamed[name]
            targets += [inner[target] for target in part.targets]
            self.columns[name] = slice(first, len(targets))
            self.groups[name] = list(range(first, len(targets)))
            self.groups |= {inner[group]: [first + i for i in members] for group, members in part.groups.items()}
        self.targets = tuple(targets)

        self.register_load_state_dict_pre_hook(_rename_terms)

    def parts(self) -> tuple[Objective, ...]:
        """Return the objectives of the sum, in the order written."""
        return tuple(part for _, part in self._named())

    def _named(self) -> Iterator[tuple[str, Objective]]:
        for name, part in self.terms.items():
            assert isinstance(part, Objective)
            yield name, part

    def _each(self, batch: Batch, drawn: Tensor, h_BTD: Tensor) -> Iterator[tuple[Objective, Tensor, Tensor]]:
        """Yield each part with its encodings and its draw."""
        h_PBTD = h_BTD.unflatten(0, (len(self.terms), len(batch.x_BTF)))
        yield from zip(self.parts(), h_PBTD, self._own(batch, drawn), strict=True)

    def _own(self, batch: Batch, drawn: Tensor) -> Iterator[Tensor]:
        """Yield the draw of each part: masks as masks, numbers of rules as numbers."""
        sizes = [part.drawn_size(batch.x_BTF.shape[1]) for part in self.parts()]
        for part, own in zip(self.parts(), drawn.split(sizes, -1), strict=True):
            yield own.to(part.drawn_type)

    def draw(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return what each part draws, part after part. Shapes: int64 [B, ...]."""
        return torch.cat([part.draw(batch, generator).long() for part in self.parts()], -1)

    def encoder_input(self, encoder: Encoder, batch: Batch, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """Return the inputs of all parts, part after part. Shapes: [P * B, T, F]."""
        each = zip(self.parts(), self._own(batch, drawn), strict=True)
        return torch.cat([part.encoder_input(encoder, batch, own, generator) for part, own in each])

    def errors(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> Errors:
        """Return the errors of all parts' targets."""
        each = [part.errors(encoder, h, batch, own) for part, h, own in self._each(batch, drawn, h_BTD)]
        return Errors(
            torch.cat([errors.huber_K for errors in each]),
            torch.cat([errors.absolute_K for errors in each]),
            torch.cat([errors.count_K for errors in each]),
        )

    def huber(self, errors: Errors) -> Tensor:
        """Return the weighted mean of the parts' Hubers."""
        hubers = [self.weights[name] * part.huber(errors.at(self.columns[name])) for name, part in self._named()]
        return torch.stack(hubers).sum() / sum(self.weights.values())

    def loss(self, errors: Errors) -> Tensor:
        """Return the weighted sum of the parts' losses."""
        losses = [self.weights[name] * part.loss(errors.at(self.columns[name])) for name, part in self._named()]
        return torch.stack(losses).sum()

    def skills(self, model: Errors, baselines: dict[str, Errors]) -> dict[str, float]:
        """Return the skill of the sum and every skill of each part.

        The skill of the sum is 1 - sum of weight * H / sum of weight * H of each part's best baseline.
        """
        out, ours, best = {"": 0.0}, 0.0, 0.0
        for name, part in self._named():
            own, mine = model.at(self.columns[name]), self._own_baselines(name, baselines)
            ours += self.weights[name] * float(part.huber(own))
            best += self.weights[name] * min(float(part.huber(errors)) for errors in mine.values())
            found = part.skills(own, mine)
            out[name] = found.pop("")
            out |= {self.renamed[name][inner]: skill for inner, skill in found.items()}
        out[""] = 1.0 - ours / best if best > 0 else 0.0
        return out

    def sigma(self) -> float | None:
        """Return the learned s of the first part that has one, or None."""
        return next((sigma for part in self.parts() if (sigma := part.sigma()) is not None), None)

    def task_heads(self) -> TaskHeads | None:
        return next((heads for part in self.parts() if (heads := part.task_heads()) is not None), None)

    def epoch_scores(self, encoder: Encoder, heads: TaskHeads | None, batches: Iterable[Batch]) -> dict[str, float]:
        each = [part.epoch_scores(encoder, heads, batches) for part in self.parts()]
        return {name: score for scores in each for name, score in scores.items()}

    def notes(self) -> list[str]:
        """Return what the parts have to tell."""
        return [note for part in self.parts() for note in part.notes()]

    def fit_targets(self, batches: Iterable[Batch]) -> None:
        """Fit the targets of each part."""
        for part in self.parts():
            part.fit_targets(batches)

    def fit_baselines(self, encoder: Encoder, batches: Iterable[Batch], generator: torch.Generator) -> None:
        """Fit the baselines of each part."""
        for part in self.parts():
            part.fit_baselines(encoder, batches, generator)

    def baseline_errors(self, encoder: Encoder, batch: Batch, drawn: Tensor) -> dict[str, Errors]:
        """Return the errors of each part's baselines on that part's targets, named ``<part> <baseline>``."""
        return {
            f"{name} {baseline}": errors
            for (name, part), own in zip(self._named(), self._own(batch, drawn), strict=True)
            for baseline, errors in part.baseline_errors(encoder, batch, own).items()
        }

    @staticmethod
    def _own_baselines(name: str, baselines: dict[str, Errors]) -> dict[str, Errors]:
        return {baseline: errors for baseline, errors in baselines.items() if baseline.startswith(f"{name} ")}

    def shown(self, encoder: Encoder, h_BTD: Tensor, batch: Batch, drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return prediction, target and loss positions of all parts' targets. Shapes: [B, T, K] each."""
        each = [part.shown(encoder, h, batch, own) for part, h, own in self._each(batch, drawn, h_BTD)]
        predicted, target, where = (torch.cat(columns, -1) for columns in zip(*each, strict=True))
        return predicted, target, where


def _rename_terms(module: nn.Module, tensors: dict[str, Any], prefix: str, *_: object) -> None:
    """Give the tensors of a term its current name, in a checkpoint that an earlier version wrote."""
    for key in [key for key in tensors if key.startswith(f"{prefix}terms.")]:
        name, dot, rest = key.removeprefix(f"{prefix}terms.").partition(".")
        tensors[f"{prefix}terms.{current_name(name)}{dot}{rest}"] = tensors.pop(key)
