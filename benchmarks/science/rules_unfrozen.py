"""Does training the encoder further under the prior reader gain over the frozen encoder?

Written before the first run.

The prior reader is fitted on the frozen encoder. Then encoder and reader are trained together on the training windows
of the fold and their mirror images: AdamW, encoder 1e-4, reader 1e-3, batches of 29, dropout as in pre-training, the
learning rate falls along a cosine. No training window is held out. The loss is the cross-entropy of start, end and
class at the labelled span. Training lasts 3 or 10 epochs.

Hypothesis. 3 or 10 epochs have a higher mean Joint@3 over labellers 1 to 3 than the frozen encoder, with 174 and with
60 labels, by more than the difference between the scores of the two encoders. Development seeds are those of
rules_variants.py. If so, the better number of epochs is read once on its fresh seeds; if not, the encoder stays frozen.

python -m benchmarks.science.rules_unfrozen FOLDER        # FOLDER: that of rules_variants pretrain FOLDER preset
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.science.rules_baselines import both_ways
from benchmarks.science.rules_reading import joined, predictions, repeats
from benchmarks.science.rules_variants import DEVELOP, METRIC, SETS, labelled
from benchmarks.synthetic_months import machine
from moola_mlflow.core import seeded_generator
from moola_mlflow.evaluation.bootstrap import bootstrap_interval, paired_difference
from moola_mlflow.evaluation.crossval import FoldOutcome, Method
from moola_mlflow.evaluation.folds import NestedFold
from moola_mlflow.evaluation.metrics import Predictions
from moola_mlflow.evaluation.prior_method import PriorMethod, priors_of
from moola_mlflow.labels import LabelledSet, Targets
from moola_mlflow.models import apply_temperature
from moola_mlflow.models.embedding import encoder_inputs
from moola_mlflow.models.files.encoder import load_from_path
from moola_mlflow.windows import mirrored

RESULTS = Path(__file__).resolve().parents[1] / "results" / "rules_unfrozen.json"
ENCODER_LR, READER_LR, BATCH = 1e-4, 1e-3, 29
EPOCHS = (3, 10)
FROZEN = "frozen"


@dataclass(frozen=True)
class UnfrozenMethod:
    """The prior reader, then some epochs of encoder and reader together. Shapes: raw features [N, T, P]."""

    frozen: PriorMethod
    encoder: Any
    features_NTP: Tensor
    turned_NTP: Tensor
    epochs: int

    @property
    def name(self) -> str:
        return f"{self.epochs} epochs"

    def run(self, targets: Targets, fold: NestedFold) -> FoldOutcome:
        reader, encoder = self.frozen.fit(targets, fold.train), copy.deepcopy(self.encoder)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fold.fit_seed)
            self._train(encoder.train(), reader.train(), targets, fold)
        with torch.no_grad():
            output = reader.eval()(encoder.eval()(self.features_NTP[torch.as_tensor(fold.test)]).float())
            start, end = reader.decode(output)
        probability = apply_temperature(output.class_logits.numpy(), 1.0)
        return FoldOutcome(probability, probability, torch.stack([start, end], 1).numpy())

    def _train(self, encoder: Any, reader: Any, targets: Targets, fold: NestedFold) -> None:
        rows = torch.as_tensor(fold.train).repeat(2)
        x_NTP = torch.cat([self.features_NTP[rows[: len(fold.train)]], self.turned_NTP[rows[len(fold.train) :]]])
        label, start, end = (torch.as_tensor(a)[rows] for a in (targets.label, targets.start, targets.end))
        groups = [
            {"params": list(encoder.parameters()), "lr": ENCODER_LR},
            {"params": list(reader.parameters()), "lr": READER_LR},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0, foreach=False)
        steps = self.epochs * -(-len(rows) // BATCH)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.5 * (1 + math.cos(math.pi * k / steps)))
        draws = seeded_generator(fold.fit_seed, 60)
        for _ in range(self.epochs):
            for batch in torch.randperm(len(rows), generator=draws).split(BATCH):
                output = reader(encoder(x_NTP[batch]), (start[batch], end[batch]))
                loss = functional.cross_entropy(output.class_logits, label[batch])
                for logits, target in zip(output.pointers, (start, end), strict=True):
                    loss = loss + functional.cross_entropy(logits, target[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()


def methods(encoder: Any, labels: LabelledSet) -> dict[str, Method]:
    """Return the frozen reader and the unfrozen ones of one encoder."""
    frozen = PriorMethod(FROZEN, both_ways(encoder, "encoding", labels), priors_of(encoder))
    features, turned = (
        torch.from_numpy(encoder_inputs(encoder.card, ohlc)) for ohlc in (labels.ohlc, mirrored(labels.ohlc))
    )
    found: list[Method] = [UnfrozenMethod(frozen, encoder, features, turned, epochs) for epochs in EPOCHS]
    return {FROZEN: frozen} | {one.name: one for one in found}


def read(folder: Path, labeller: int, count: int) -> list[dict[str, Any]]:
    """Return one row for each number of epochs: Joint@3, the gain over the frozen encoder, and both encoders alone."""
    encoders = [load_from_path(folder / name) for name in ("preset-0", "preset-1")]
    sets = labelled(labeller, count, DEVELOP)
    each: dict[str, list[Predictions]] = {}
    for encoder in encoders:
        parts: dict[str, list[Predictions]] = {}
        for labels in sets:
            for name, method in methods(encoder, labels).items():
                parts.setdefault(name, []).append(predictions(method, labels)[0])
        for name, some in parts.items():
            each.setdefault(name, []).append(joined(some))
    rows, base = [], repeats(each[FROZEN])
    for name, both in each.items():
        ours = repeats(both)
        row = {"variant": name, "labeller": labeller, "labels": count, "windows": len(ours.label)}
        row["joint"] = bootstrap_interval(ours.statistics()[METRIC], np.arange(len(ours.label)))._asdict()
        row["gain"] = paired_difference(ours, base, METRIC)._asdict()
        row["by_pair"] = [float(one.statistics()[METRIC](np.ones((1, len(one.label))))[0]) for one in both]
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="The prior reader with an encoder that is trained further.")
    parser.add_argument("folder", type=Path, help="where preset-0 and preset-1 of rules_variants.py lie")
    given = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": machine(), "read": []}
    for count in SETS:
        for labeller in (1, 2, 3):
            result["read"] += read(given.folder, labeller, count)
            RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
