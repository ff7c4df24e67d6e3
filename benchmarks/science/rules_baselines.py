"""What the prior reader on an encoder trained on rules is compared with, beside price-path features and a span head.

Each baseline predicts every labelled window out of fold, on the folds of the prior reader.

Shape legend: N windows, M test windows of a fold, T steps, P inputs, K rules, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moola_mlflow.evaluation.crossval import FoldOutcome, HeadMethod, Method, fresh_copy
from moola_mlflow.evaluation.folds import NestedFold
from moola_mlflow.evaluation.prior_method import PriorMethod
from moola_mlflow.labels import LabelledSet, Targets
from moola_mlflow.labels.rules import Marked, apply_rules, draw_rules
from moola_mlflow.models import Prior, apply_temperature
from moola_mlflow.models.detector import detector_inputs
from moola_mlflow.models.files.encoder import load_from_path
from moola_mlflow.models.heads import Output
from moola_mlflow.models.task_heads import NUM_CLASSES
from moola_mlflow.training.head import HeadInputs, HeadSettings, fit_head
from moola_mlflow.windows import mirrored

BAGGED = 4
RULES = 96
"""Rules whose outputs are inputs of a reader."""
POINTER_SPREAD, CLASS_SPREAD = 0.1, 0.3
"""How large the weights of a reader without pre-training are expected to be, on inputs of unit variance."""


def both_ways(encoder: Any, which: Any, labels: LabelledSet) -> HeadInputs:
    """Return a head's inputs of the labelled windows and of the same windows upside down."""
    values, turned = (detector_inputs(encoder, which, ohlc) for ohlc in (labels.ohlc, mirrored(labels.ohlc)))
    return HeadInputs(values, turned)


@dataclass(frozen=True)
class BaggedHeads:
    """Several span heads from different seeds; their log probabilities are averaged."""

    name: str
    inputs: HeadInputs
    settings: HeadSettings

    @torch.no_grad()
    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        outputs = []
        for k in range(BAGGED):
            seed = fold.fit_seed + k
            with torch.enable_grad():
                fitted = fit_head(self.inputs, targets, fold.fit, fold.held, self.settings, seed)
            outputs.append(fitted.model.eval()(self.inputs.values[torch.as_tensor(fold.test)]))
        logits = _mean_log_probability([output.class_logits for output in outputs])
        pointers = [_mean_log_probability([output.pointers[k] for output in outputs]) for k in (0, 1)]
        start, end = fitted.model.decode(Output(logits, (pointers[0], pointers[1])))
        probability = apply_temperature(logits.numpy(), 1.0)
        return FoldOutcome(probability, probability, torch.stack([start, end], 1).numpy())


def _mean_log_probability(logits: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([one.log_softmax(-1) for one in logits]).mean(0)


@dataclass(frozen=True)
class LinearReader:
    """The prior reader without a prior: any pointer and any class layer is as likely as any other of its size."""

    name: str
    inputs: HeadInputs

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        num = self.inputs.values.shape[-1]
        directions = torch.eye(2 * num).view(2 * num, 2, num) * POINTER_SPREAD
        prior = Prior(torch.zeros(2, num), directions, torch.eye(3 * num) * CLASS_SPREAD)
        std, mean = torch.std_mean(self.inputs.values[torch.as_tensor(fold.train)], dim=(0, 1))
        assert self.inputs.mirrored is not None
        scaled = [(x - mean) / std.clamp(min=1e-6) for x in (self.inputs.values, self.inputs.mirrored)]
        return PriorMethod(self.name, HeadInputs(*scaled), (prior,)).run(targets, fold)


def rule_outputs(marks: list[Marked], num_steps: int) -> torch.Tensor:
    """Return what rules say, step by step: where each span starts, where it ends, and its class along it.

    Shapes: float32 [N, T, 5 K].
    """
    num = len(marks[0].found)
    out = np.zeros((len(marks), 2 + NUM_CLASSES, num, num_steps), np.float32)
    for mark, channel in zip(marks, out, strict=True):
        (at,) = np.nonzero(mark.found)
        channel[0, at, mark.start[at]], channel[1, at, mark.end[at]] = 1, 1
        along = (np.arange(num_steps) >= mark.start[:, None]) & (np.arange(num_steps) <= mark.end[:, None])
        for c in range(NUM_CLASSES):
            channel[2 + c] = along & (mark.labelled & (mark.outcome == c))[:, None]
    return torch.from_numpy(out.reshape(-1, num, num_steps)).permute(1, 2, 0).contiguous()


@dataclass(frozen=True)
class BestRule:
    """The one rule that scores best on the training windows, with the commonest class of each of its own classes."""

    name: str
    marks: list[Marked]

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        train, test = fold.train, fold.test
        truth, label = np.stack([targets.start, targets.end], 1), targets.label
        best, chosen = -1.0, None
        for mark in self.marks:
            say = np.where(mark.labelled, mark.outcome, NUM_CLASSES)
            table = np.zeros((NUM_CLASSES + 1, targets.num_classes))
            np.add.at(table, (say[train], label[train]), 1)
            table[table.sum(1) == 0] = np.bincount(label[train], minlength=targets.num_classes)
            span = np.where(
                mark.found[:, None], np.stack([mark.start, mark.end], 1), np.median(truth[train], 0).astype(int)
            )
            hit = (np.abs(span - truth) <= 3).all(1) & (table.argmax(1)[say] == label)
            if hit[train].mean() > best:
                best, chosen = hit[train].mean(), (say, table / table.sum(1, keepdims=True), span)
        assert chosen is not None
        say, probability, span = chosen
        return FoldOutcome(probability[say[test]], probability[say[test]], span[test])


def baseline_methods(folder: Path) -> dict[str, Callable[[LabelledSet], Method]]:
    """Return the baselines by name. ``folder`` holds the encoders of the study."""
    first = load_from_path(folder / "encoder0")
    path = load_from_path(folder / "encoder_path") if (folder / "encoder_path").is_dir() else None

    def head(encoder: Any, which: str) -> Callable[[LabelledSet], Method]:
        return lambda labels: HeadMethod("head", both_ways(encoder, which, labels), HeadSettings())

    def outputs(labels: LabelledSet, num: int) -> tuple[list[Marked], list[Marked]]:
        rules = draw_rules(labels.ohlc, num, "strict", 0)
        return apply_rules(rules, labels.ohlc), apply_rules(rules, mirrored(labels.ohlc))

    def as_inputs(labels: LabelledSet) -> Method:
        values, turned = (rule_outputs(marks, labels.ohlc.shape[1]) for marks in outputs(labels, RULES))
        return HeadMethod("outputs", HeadInputs(values, turned), HeadSettings())

    methods: dict[str, Callable[[LabelledSet], Method]] = {
        "price-path features, span head": head(None, "price_path"),
        "price-path features, four bagged span heads": lambda labels: BaggedHeads(
            "bagged", both_ways(None, "price_path", labels), HeadSettings()
        ),
        "price-path features, linear reader": lambda labels: LinearReader(
            "linear", both_ways(None, "price_path", labels)
        ),
        "random encoder with the same inputs, span head": head(fresh_copy(first, 17), "encoding"),
        "encoder trained on rules, span head": head(first, "encoding"),
        f"outputs of {RULES} rules, span head": as_inputs,
        "best single rule of 256": lambda labels: BestRule("rule", outputs(labels, 256)[0]),
    }
    if path is not None:
        methods["encoder of objective price_path with the same inputs, span head"] = head(path, "encoding")
    return methods
