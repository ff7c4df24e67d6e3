"""What the objective `rules` costs: the share of a training step that is not the encoder, in CPU time of one thread.

    python -m benchmarks.speed.rules_cost [--steps 40] [--rounds 5] [--smoke] [--out benchmarks/results/rules_cost.json]

The network of configs/rules.yaml in fp32, on prepared batches, so that reading windows counts for neither. A step is
forward, loss, backward, clipping and AdamW. Against it, step by step in turn: the encoder's forward and backward alone,
with a fixed gradient at its output, and clipping with AdamW alone. The share of the objective is
1 - (encoder + update) / step; ``share_with_update`` is 1 - encoder / step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic_months import machine
from moola_mlflow.core import PretrainKeys, make_config, read_preset

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "rules_cost.json"
LINE = 0.30
"""Largest share that the objective may take at hidden 32."""
SMALL = {"encoder.hidden": 8, "objective.num_rules": 16, "objective.rules_per_step": 8}
NUM_BATCHES = 4


def cpu_s(works: dict[str, Callable[[int], Any]], steps: int) -> dict[str, float]:
    """Return the CPU seconds of one step of each work, the mean of some that were done in turn."""
    total = dict.fromkeys(works, 0.0)
    for i in range(steps):
        for name, work in works.items():
            started = time.process_time()
            work(i)
            total[name] += time.process_time() - started
    return {name: seconds / steps for name, seconds in total.items()}


def measure(smoke: bool, steps: int, rounds: int) -> dict[str, Any]:
    """Return CPU seconds of a whole step and of the encoder alone, round by round, and the objective's share."""
    import torch

    from moola_mlflow.core import seeded_generator
    from moola_mlflow.training.optimizer import AdamW
    from moola_mlflow.training.setup import build_model, prepare

    torch.set_num_threads(1)
    keys = {"bars.sample_bars": 12_000, **(SMALL if smoke else {}), "runtime.precision": "fp32"}
    config: PretrainKeys = make_config(PretrainKeys, read_preset(ROOT / "configs" / "rules.yaml"), keys)
    data = prepare(config, torch.device("cpu"))
    model = build_model(config, data.source, data.mean, data.std)
    size = config.trainer.batch_size
    batches = list(data.source.batches(data.split.train[: NUM_BATCHES * size], size))
    model.objective.fit_targets(batches)
    model.train()
    encoder, objective, draws = model.encoder, model.objective, seeded_generator(17, 1)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    with torch.no_grad():
        gradient_BTD = torch.randn_like(encoder(batches[0].x_BTF)) * 1e-3

    def step(i: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        objective.loss(objective(encoder, batches[i % NUM_BATCHES], draws)).backward()
        update(i)

    def update(i: int) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.trainer.clip_norm)
        optimizer.step()

    def encoder_alone(i: int) -> None:
        encoder.zero_grad(set_to_none=True)  # the objective's gradients stay, for the update alone
        encoder(batches[i % NUM_BATCHES].x_BTF).backward(gradient_BTD)

    works = {"step_s": step, "encoder_s": encoder_alone, "update_s": update}
    cpu_s(works, 2)  # warm
    runs = [cpu_s(works, steps) for _ in range(rounds)]
    for run in runs:
        run["share"] = 1 - (run["encoder_s"] + run["update_s"]) / run["step_s"]
        run["share_with_update"] = 1 - run["encoder_s"] / run["step_s"]
        run["windows_per_cpu_s"] = size / run["step_s"]
    about = {
        **{"hidden": config.encoder.hidden, "batch_size": size, "num_rules": config.objective.num_rules},
        **{"rules_per_step": config.objective.rules_per_step, "steps": steps, "precision": "fp32", "threads": 1},
    }
    shares = {key: float(np.median([run[key] for run in runs])) for key in ("share", "share_with_update")}
    return {"machine": machine(), "about": about, "runs": runs, **shares, "line": LINE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="steps of each kind in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="a small network and few steps, to try it out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    steps, rounds = (3, 2) if words.smoke else (words.steps, words.rounds)
    result = measure(words.smoke, steps, rounds)
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    step, alone = (statistics.median(run[key] for run in result["runs"]) for key in ("step_s", "encoder_s"))
    spread = [run["share"] for run in result["runs"]]
    print(f"A step takes {1000 * step:.1f} CPU ms, the encoder alone {1000 * alone:.1f}.")
    print(f"Share of the objective: {result['share']:.0%} ({min(spread):.0%} to {max(spread):.0%}), line {LINE:.0%}.")
    print(f"With clipping and AdamW: {result['share_with_update']:.0%}.")


if __name__ == "__main__":
    main()
