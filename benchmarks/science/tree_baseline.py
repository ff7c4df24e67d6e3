"""How much of the masked skill needs a sequence model: gradient-boosted trees on the baselines' ten neighbours.

    python -m benchmarks.science.tree_baseline [--presets stones]

For each hidden step the trees read the five nearest visible steps on each side, and how far away each is. They are
fitted on the training windows with the baselines' masks. They are scored on the test windows with the masks of a run
of seed 17.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.core import PretrainKeys, make_config, read_preset
from moola_mlflow.core.runtime import BASELINE_FIT, EVALUATION, seeded_generator
from moola_mlflow.features.zigzag import Hybrid
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.objectives import build_objective
from moola_mlflow.models.objectives.baselines import SIDE, neighbours
from moola_mlflow.models.objectives.masked import Masked
from moola_mlflow.training.validation import EVALUATION_BATCH
from moola_mlflow.windows.batches import Batch, BatchSource, fit_scaling
from moola_mlflow.windows.splits import split_by_time
from moola_mlflow.windows.windows import make_windows


def distances(mask_BT: torch.Tensor) -> np.ndarray:
    """Return how many steps away each of the ten neighbours is, 105 where there is none. Shapes: [M, 10]."""
    rows = []
    for mask in mask_BT.numpy():
        visible = np.flatnonzero(~mask)
        for t in np.flatnonzero(mask):
            at = np.searchsorted(visible, t)
            left, right = visible[max(0, at - SIDE) : at], visible[at : at + SIDE]
            padded_left = [105] * (SIDE - len(left)) + (t - left).tolist()
            rows.append(padded_left + (right - t).tolist() + [105] * (SIDE - len(right)))
    return np.array(rows, np.float32)


def huber(error: np.ndarray) -> np.ndarray:
    """Return the Huber loss with delta 1, element by element."""
    size = np.abs(error)
    return np.where(size <= 1, 0.5 * size**2, size - 0.5)


def hidden_steps(
    objective: Masked, encoder: Encoder, source: BatchSource, part: np.ndarray, draws: torch.Generator
) -> tuple[np.ndarray, np.ndarray, list[Batch], list[torch.Tensor]]:
    """Return inputs and targets of the hidden steps of a part, with its batches and masks."""
    batches = list(source.batches(part, EVALUATION_BATCH))
    masks = [objective.draw(batch, draws) for batch in batches]
    z = [encoder.standardise(batch.x_BTF) for batch in batches]
    near = torch.cat([neighbours(*pair) for pair in zip(z, masks, strict=True)]).numpy()
    inputs = np.hstack([near, np.vstack([distances(mask) for mask in masks])])
    return inputs, torch.cat([a[m] for a, m in zip(z, masks, strict=True)]).numpy(), batches, masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["stones"])
    print("| preset | trees: skill against the best baseline | candle | state |\n|---|---|---|---|")
    for preset in parser.parse_args().presets:
        config = make_config(PretrainKeys, read_preset(f"configs/{preset}.yaml"), {})
        windows = make_windows(read_bars(config.bars))
        split = split_by_time(windows, config.split)
        source = BatchSource(windows, config.features.set, Hybrid(), config.windows.warmup, torch.device("cpu"))
        encoder = build_encoder("bilstm", len(source.names), 1, 1, 0.0)
        encoder.set_scaling(*fit_scaling(source.features(split.train), source.warmup))
        objective = build_objective(config.objective, source.names, encoder.output_size)
        assert isinstance(objective, Masked)

        x, y, batches, masks = hidden_steps(
            objective, encoder, source, split.train, seeded_generator(config.trainer.seed, BASELINE_FIT)
        )
        objective.fit_baselines(encoder, batches, seeded_generator(config.trainer.seed, BASELINE_FIT))
        x_test, y_test, batches, masks = hidden_steps(
            objective, encoder, source, split.test, seeded_generator(config.trainer.seed, EVALUATION, 1)
        )
        errors = np.column_stack(
            [huber(HistGradientBoostingRegressor(random_state=0).fit(x, y[:, k]).predict(x_test) - y_test[:, k])
             for k in range(y.shape[1])]
        ).mean(0)  # fmt: skip
        baselines: dict[str, np.ndarray] = {}
        for batch, mask in zip(batches, masks, strict=True):
            for name, found in objective.baseline_errors(encoder, batch, mask).items():
                baselines[name] = baselines.get(name, 0) + found.huber_K.detach().numpy()
        every = {"": list(range(y.shape[1])), **objective.groups}
        skills = [
            1 - errors[at].mean() / (min(r[at].mean() for r in baselines.values()) / len(y_test))
            for at in every.values()
        ]
        print(f"| {preset} | " + " | ".join(f"{skill:.3f}" for skill in skills) + " |")


if __name__ == "__main__":
    main()
