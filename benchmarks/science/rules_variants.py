"""Does another encoder, objective or set of bars teach the prior reader more than ``configs/rules.yaml`` does?

Written before the first run.

Hypotheses, each about the mean Joint@3 over labellers 1 to 3 with 174 and with 60 labels, against the preset under the
same two pairs of training seed and rules' seed:

- ``real``: 16,000 real ES bars alone teach less than the sample does; ``both``: sample and real bars teach more.
- ``path``: the sum rules+0.5*price_path teaches no more than rules alone.
- ``wide``: hidden 64 with 512 rules teaches more.
- ``bank``: five encoders of the preset, side by side in one reader, teach more than one: than the mean of the five.
- ``shapes``: 256 rules of the family shapes (strict with double tops, wedges and flags) teach no less about labellers 1
  to 3, and more about labellers 4 and 5, which look for failed breakouts and for runs that turn.
- ``dilated16`` and ``dilated32``: five residual dilated convolutions of width 32 and 64 teach as much and more.
- ``mingru16`` (three layers) and ``mingru32`` (two layers): gates that do not read the state are enough. ``mingru32``
  teaches as much as the preset, and ``mingru16`` loses no more than .02, at 0.8 of its cost.
- ``attention16`` (three layers) and ``attention32`` (two layers): events are found by nearby steps. So
  local attention teaches as much (16), and more (32) at 1.7 times the cost.

Hidden sizes and layers of the last four were chosen by the cost of a training step alone, to be near the preset's. On
one core a step takes about 0.8, 1.0, 1.0 and 1.7 times as long as the preset's (mingru16, mingru32, attention16 and
attention32; ``benchmarks/speed/encoders.py``): PyTorch's LSTM is quick there. So none comes at half the cost.

Rule of choice. A variant is confirmed if its gain, a mean over labellers, counts and pairs, is larger than 0 and larger
than the spread between the pairs. What is confirmed once on the fresh seeds of ``FRESH`` may change the preset: the
95 % interval of the paired difference over all windows must lie above 0, or, for a variant that is at least twice as
fast, above -.01.

Development labels come from seeds 71001, 72001 and 73001. ``confirm`` reads those of ``FRESH``, and nothing else does
(rules_averaged.py read those of ``CONFIRM`` before any variant was confirmed).

Two further questions. Step ``later`` reads labellers 4 and 5, seeds 74002 and 75002; it is the first question of
``shapes``. Step ``real`` reads labels of the file of real ES bars. ``real`` and ``both`` saw these bars in
pre-training, without labels.

python -m benchmarks.science.rules_variants pretrain FOLDER NAME...        # encoders of some variants
python -m benchmarks.science.rules_variants read FOLDER                    # all that lie in the folder; also: later
python -m benchmarks.science.rules_variants real FOLDER                    # on real bars
python -m benchmarks.science.rules_variants confirm FOLDER NAME...         # against the preset, on fresh seeds
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch

from benchmarks.science.fuzzy_labeller import fuzzy_labels
from benchmarks.science.objectives.second_labeller import second_labels
from benchmarks.science.rules_baselines import both_ways
from benchmarks.science.rules_reading import joined, part, predictions, repeats
from benchmarks.science.trap_labeller import trap_labels
from benchmarks.science.turn_labeller import turn_labels
from benchmarks.synthetic_months import machine
from moola_mlflow.bars import read_bars
from moola_mlflow.core import BarsConfig, PretrainKeys, make_config, read_preset
from moola_mlflow.evaluation.bootstrap import bootstrap_interval, paired_difference
from moola_mlflow.evaluation.metrics import Predictions
from moola_mlflow.evaluation.prior_method import PriorMethod, priors_of
from moola_mlflow.labels import LabelledSet
from moola_mlflow.labels.weak import weak_labels
from moola_mlflow.models.encoders.ensemble import Ensemble
from moola_mlflow.models.files.checkpoint import BEST_CHECKPOINT, Checkpointer, about_training, load_checkpoint
from moola_mlflow.models.files.encoder import describe_encoder, describe_training, load_from_path, save_encoder
from moola_mlflow.training.setup import build_trainer, prepare

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "rules_variants.json"
REAL = ROOT.parent / "shared" / "data" / "es_front_1min.parquet"
PAIRS = ((17, 0), (23, 1), (31, 2), (43, 3), (57, 4))
"""Training seed and seed of the rules; the last three only for the bank."""
WIDE = {"encoder.hidden": 64, "objective.num_rules": 512}
DILATED = {"encoder.name": "dilated", "encoder.layers": 5}
MINGRU, ATTENTION = {"encoder.name": "mingru"}, {"encoder.name": "attention"}
VARIANTS: dict[str, dict[str, Any]] = {
    "preset": {},
    "dilated16": DILATED | {"encoder.hidden": 16},
    "dilated32": DILATED,
    "mingru16": MINGRU | {"encoder.layers": 3, "encoder.hidden": 16},
    "mingru32": MINGRU | {"encoder.layers": 2},
    "attention16": ATTENTION | {"encoder.layers": 3, "encoder.hidden": 16},
    "attention32": ATTENTION | {"encoder.layers": 2},
    "real": {"bars.instrument": "front"},
    "both": {"bars.instrument": "all"},
    "path": {"objective.name": "rules+0.5*price_path"},
    "wide": WIDE,
    "shapes": {"objective.family": "shapes"},
}
DEVELOP = {1: (weak_labels, 71_001), 2: (second_labels, 72_001), 3: (fuzzy_labels, 73_001)}
LATER = {4: (trap_labels, 74_002), 5: (turn_labels, 75_002)}
CONFIRM = {1: (weak_labels, 81_001), 2: (second_labels, 82_001), 3: (fuzzy_labels, 83_001)}
FRESH = {1: (weak_labels, 84_001), 2: (second_labels, 85_001), 3: (fuzzy_labels, 86_001)}
SETS = {174: 3, 60: 4}
LONGER = {5: 400_000}
"""Bars of a labeller's sample, where 200,000 hold too few of its spans."""
METRIC = "joint_success_at_3"


def pretrain(folder: Path, name: str, pairs: Sequence[int]) -> None:
    """Train the encoders of a variant under some pairs of seeds, and save each with its cost."""
    for i in pairs:
        place = folder / f"{name}-{i}"
        if (place / "encoder.json").is_file():
            continue
        seed, rules_seed = PAIRS[i]
        keys = {"trainer.seed": seed, "objective.rules_seed": rules_seed, "runtime.shards": 1} | VARIANTS[name]
        if name in ("real", "both"):
            keys["bars.path"] = str(_bars(folder) if name == "both" else REAL)
        config = make_config(PretrainKeys, read_preset(ROOT / "configs" / "rules.yaml"), keys)
        cpu = time.process_time()
        data = prepare(config, torch.device("cpu"))
        trainer = build_trainer(config, data, "fp32", Checkpointer(place / "checkpoints", about_training(config)))
        trainer.evaluation.fit_baselines()
        trainer.fit()
        model = trainer.model
        model.load_state_dict(load_checkpoint(place / "checkpoints" / BEST_CHECKPOINT)["model_state_dict"])
        model.encoder.task_heads = model.objective.task_heads()
        about = {**describe_encoder(config, model.encoder), **describe_training(config)}
        card = {**about, "cpu_seconds": time.process_time() - cpu, "history": trainer.progress.history}
        save_encoder(model.encoder, card, place)
        print(f"{place.name}: {card['cpu_seconds']:.0f} CPU seconds", flush=True)


def _bars(folder: Path) -> Path:
    """Write the sample's bars and the real ones as instruments of one file, and return its path."""
    path = folder / "both.parquet"
    parts = []
    for bars, name in (
        (read_bars(BarsConfig()), "SAMPLE"),
        (read_bars(BarsConfig(path=str(REAL), instrument="front")), ""),
    ):
        part = pd.DataFrame(bars.ohlc, columns=["open", "high", "low", "close"])
        part["time"], part["volume"] = pd.to_datetime(bars.time_ns, utc=True), bars.volume
        part["symbol"] = [name or bars.symbols[key] for key in bars.instrument.tolist()]
        parts.append(part)
    pd.concat(parts, ignore_index=True).to_parquet(path)
    return path


def labelled(labeller: int, count: int, labellers: dict[int, Any]) -> list[LabelledSet]:
    """Return disjoint labelled sets of one labeller, each spread over all of its bars."""
    make, seed = labellers[labeller]
    bars = read_bars(BarsConfig(sample_bars=LONGER.get(labeller, 200_000), sample_seed=seed))
    whole, num = make(bars, SETS[count] * count, seed), SETS[count]
    return [part(whole, np.arange(i, len(whole), num)) for i in range(num)]


def labelled_real(labeller: int, labellers: dict[int, Any]) -> list[LabelledSet]:
    """Return the windows that a labeller finds in the file of real bars: one set, of at most 174."""
    make, seed = labellers[labeller]
    return [make(read_bars(BarsConfig(path=str(REAL), instrument="front")), 174, seed)]


def read_encoder(encoder: Any, sets: Sequence[LabelledSet]) -> tuple[Predictions, float]:
    """Return what the prior reader says of every window out of fold, and the CPU seconds of reading all windows."""
    priors, parts, seconds = priors_of(encoder), [], 0.0
    for labels in sets:
        started = time.process_time()
        inputs = both_ways(encoder, "encoding", labels)
        seconds += time.process_time() - started
        parts.append(predictions(PriorMethod("prior", inputs, priors), labels)[0])
    return joined(parts), seconds


def encoders_of(folder: Path, name: str, pairs: Sequence[int] = (0, 1)) -> dict[int, Any]:
    """Return the encoders of a variant by pair of seeds; the bank of all encoders of the preset is one."""
    if name == "bank":
        there = [folder / f"preset-{i}" for i in range(len(PAIRS))]
        return {0: Ensemble([load_from_path(one) for one in there if (one / "encoder.json").is_file()])}
    places = {i: folder / f"{name}-{i}" for i in pairs}
    return {i: load_from_path(place) for i, place in places.items() if (place / "encoder.json").is_file()}


def read(folder: Path, names: Sequence[str], labellers: dict[int, Any], key: str) -> None:
    """Read the labelled sets with some variants and the preset, and write scores and paired differences."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    rows: list[dict[str, Any]] = [row for row in results.get(key, []) if row["variant"] not in names]
    pairs = range(len(PAIRS)) if "bank" in names else (0, 1)  # a bank is compared with all that it holds
    both: dict[str, list[tuple[Predictions, Predictions]]] = {}
    for count in (None,) if key == "real" else SETS:
        for labeller in labellers:
            sets = labelled(labeller, count, labellers) if count else labelled_real(labeller, labellers)
            base = {i: read_encoder(encoder, sets) for i, encoder in encoders_of(folder, "preset", pairs).items()}
            for name in names:
                read_now = encoders_of(folder, name) if name != "preset" else {}
                of = {i: read_encoder(encoder, sets) for i, encoder in read_now.items()}
                of = of or {i: base[i] for i in (0, 1)}
                alike = base if name == "bank" else of
                each, theirs = list(of.values()), repeats([base[i][0] for i in alike])
                ours = repeats([one for one, _ in each])
                both.setdefault(name, []).append((ours, theirs))
                row = {"variant": name, "labeller": labeller, "labels": count or len(ours.label)}
                row["windows"] = len(ours.label)
                row["joint"] = bootstrap_interval(ours.statistics()[METRIC], np.arange(len(ours.label)))._asdict()
                row["gain"] = paired_difference(ours, theirs, METRIC)._asdict()
                row["by_pair"] = [_mean(one) for one, _ in each]
                row["windows_per_cpu_second"] = len(each) * 2 * len(ours.label) / sum(s for _, s in each)
                rows.append(row)
                print(json.dumps(row), flush=True)
    together = {
        name: paired_difference(*(joined(parts) for parts in zip(*found, strict=True)), METRIC)._asdict()
        for name, found in both.items()
        if name != "preset"
    }
    print(json.dumps(together), flush=True)
    cards = {place.parent.name: json.loads(place.read_text()) for place in _cards(folder)}
    costs = {name: card["cpu_seconds"] for name, card in cards.items()}
    few_shot = {name: card["history"][-1]["rules/few_shot"] for name, card in cards.items()}
    results |= {
        "machine": machine(),
        key: rows,
        "together": results.get("together", {}) | {key: results.get("together", {}).get(key, {}) | together},
        "pretrain_cpu_seconds": results.get("pretrain_cpu_seconds", {}) | costs,
        "few_shot": results.get("few_shot", {}) | few_shot,
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _cards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-[0-9]/encoder.json"))


def _mean(one: Predictions) -> float:
    return float(one.statistics()[METRIC](np.ones((1, len(one.label))))[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="The study of variants of the preset rules.")
    parser.add_argument("step", choices=("pretrain", "read", "later", "real", "confirm"))
    parser.add_argument("folder", type=Path, help="where the encoders lie")
    parser.add_argument("names", nargs="*", help=f"variants: {', '.join(VARIANTS)}; read and confirm also: bank")
    parser.add_argument("--pairs", default="0,1", help="numbers of the pairs of seeds")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.step == "pretrain":
        for name in given.names:
            pretrain(given.folder, name, [int(number) for number in given.pairs.split(",")])
        return
    names = given.names or sorted({place.parent.name.rsplit("-", 1)[0] for place in _cards(given.folder)})
    labellers = {"confirm": FRESH, "later": LATER}.get(given.step, DEVELOP)
    read(given.folder, names, labellers, given.step)


if __name__ == "__main__":
    main()
