"""Does pre-training on random rules, read by the prior reader, beat price-path features on labellers it never met?

Written before the first run of these seeds; lines and hypothesis were not changed after it.

Hypothesis. On each of three labellers (1: surge-1, 2: closes only, 3: fuzzy) and with 60, 174 and 500 labels the
prior reader on an encoder of ``configs/rules.yaml`` has a higher Joint@3 than the price-path features under the span
head, the strongest detector without pre-training. The 95 % interval of the paired difference lies above 0.

Lines to reach. Joint@3 with 174 labels .78 / .67 / .45, gain .07 for labellers 1 and 2; with 60 labels .75 / .64 /
.40, gain .12 / .11 / .06; ECE below .08 with 174 labels, without a temperature.

Seeds. Four encoders: training seeds 17 and 23, each with the rules of seed 0 and of seed 1. (The first two were read
once after a shortened training, by labeller 1 alone; the other two were added before the whole study ran.) Nothing was
tuned on the label seeds of rules_reading.py, which no other study uses. Encoders read
the sample of seed 1. Every labelled set is cut into five purged folds, or fewer where a class is too rare; both readers
see the same folds. Windows share no bar; the interval resamples them, after averaging over encoders.

What the rules share with the labellers: moves, breaks and squeezes, and what follows them. What is held out: the strict
family searches for no largest displacement, which is how labellers 1 to 3 find a span, and decides at no fraction
between .4 and .6, where theirs lie. It is weak supervision by random rules.

python -m benchmarks.science.rules_study pretrain FOLDER 0 1 2 3  # the encoders
python -m benchmarks.science.rules_study read FOLDER         # all: 60 and 174 labels
python -m benchmarks.science.rules_study pretrain FOLDER path  # the objective price_path with the same inputs
python -m benchmarks.science.rules_study read FOLDER 500     # other counts
python -m benchmarks.science.rules_study read FOLDER BARS    # files of real bars
python -m benchmarks.science.rules_study read FOLDER --only price_path  # adds one baseline to rows that are there
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from moola_mlflow.core import PretrainKeys, make_config, read_preset
from moola_mlflow.models.files.checkpoint import BEST_CHECKPOINT, Checkpointer, about_training, load_checkpoint
from moola_mlflow.models.files.encoder import describe_encoder, describe_training, save_encoder
from moola_mlflow.training.setup import build_trainer, prepare

ROOT = Path(__file__).resolve().parents[2]
ENCODERS = ((17, 0), (23, 1), (17, 1), (23, 0))
"""Training seed and seed of the rules of each encoder."""


def pretrain(folder: Path, number: str) -> None:
    """Train one encoder of the preset, or its like on the objective price_path, and save it with its scores."""
    seed, rules_seed = ENCODERS[0 if number == "path" else int(number)]
    keys = {"trainer.seed": seed, "objective.rules_seed": rules_seed, "runtime.shards": 1}
    if number == "path":
        keys |= {"objective.name": "price_path"}
    config = make_config(PretrainKeys, read_preset(ROOT / "configs" / "rules.yaml"), keys)
    cpu, wall = time.process_time(), time.perf_counter()
    data = prepare(config, torch.device("cpu"))
    checkpoints = folder / f"checkpoints{number}"
    trainer = build_trainer(config, data, "fp32", Checkpointer(checkpoints, about_training(config)))
    model = trainer.model
    trainer.subscribers = [lambda event: print(event.metrics, flush=True) if hasattr(event, "metrics") else None]
    trainer.evaluation.fit_baselines()
    trainer.fit()
    model.load_state_dict(load_checkpoint(checkpoints / BEST_CHECKPOINT)["model_state_dict"])
    if number != "path":
        model.encoder.task_heads = model.objective.task_heads()
    seconds = {"cpu_seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}
    about = {**describe_encoder(config, model.encoder), **describe_training(config)}
    card = {**about, "history": trainer.progress.history, **seconds}
    save_encoder(model.encoder, card, folder / (f"encoder{number}" if number != "path" else "encoder_path"))


def main() -> None:
    parser = argparse.ArgumentParser(description="The study of rules: train its encoders, then read labels with them.")
    parser.add_argument("step", choices=("pretrain", "read"))
    parser.add_argument("folder", type=Path, help="where the encoders lie")
    parser.add_argument(
        "words", nargs="*", help="pretrain: number of the encoder, or path; read: counts of labels, files of real bars"
    )
    parser.add_argument("--only", default="", help="read: a part of the names of the baselines to add")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.step == "pretrain":
        for number in given.words:
            pretrain(given.folder, number)
        return
    from benchmarks.science.rules_reading import read

    words = given.words or ["174", "60"]
    counts, files = [int(word) for word in words if word.isdecimal()], [w for w in words if not w.isdecimal()]
    there = [folder for i in range(len(ENCODERS)) if (folder := given.folder / f"encoder{i}").is_dir()]
    read(there, counts, [Path(name) for name in files], given.only)


if __name__ == "__main__":
    main()
