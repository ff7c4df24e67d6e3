"""What pre-training by masking learns: presets over seeds, with the skill of every feature against its best baseline.

    python -m benchmarks.science.pretraining --presets stones --seeds 13 17 23 --out benchmarks/results/pretraining.json

Runs go through the command users run, each with a tracking store of its own that is thrown away.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from benchmarks.synthetic_months import machine

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def train(preset: str, seed: int, overrides: list[str]) -> dict[str, object]:
    """Run one pre-training and return its results, its skills and the wall time in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(ROOT)}
        environment.pop("MLFLOW_RUN_ID", None)
        command = [sys.executable, "-m", "moola_mlflow", "pretrain", "--config", str(ROOT / f"configs/{preset}.yaml")]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--seed", str(seed), "--register", "none", *(f"--{pair}" for pair in overrides)],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        seconds = time.perf_counter() - started
        if done.returncode:
            raise SystemExit(f"{preset}, seed {seed}: exit {done.returncode}\n{done.stderr[-2000:]}")
        (results_file,) = Path(folder).rglob("training_results.json")
        (skill_file,) = Path(folder).rglob("skill.json")
        (journal,) = Path(folder).rglob("journal.jsonl")
        records = map(json.loads, journal.read_text().splitlines())
        metrics: dict[str, float] = {}
        for record in records:
            metrics |= record["metrics"] if record["kind"] == "metrics" else {}
        results = json.loads(results_file.read_text())
        skill = json.loads(skill_file.read_text())
    print(
        f"{preset} seed {seed}: {seconds:.0f} s, val skill {skill['skill']['val']['skill']:.3f}",
        file=sys.stderr,
        flush=True,
    )
    return {
        "preset": preset,
        "seed": seed,
        "seconds": seconds,
        "leak": metrics.get("leak/masked_sensitivity"),
        "probe": {name.removeprefix("probe/"): value for name, value in metrics.items() if name.startswith("probe/")},
        "best_val_loss": results["best_val_loss"],
        "best_epoch": results["best_epoch"],
        "test": results["test_metrics"],
        "skill": skill["skill"],
        "baselines": skill["baseline_huber"],
        "loss_profiled": [row["val/loss_profiled"] for row in results["history"]],
        "val_loss": [row["val/loss"] for row in results["history"]],
    }


def spread(values: list[float], digits: int = 3) -> str:
    """Return mean and, over several seeds, the standard deviation."""
    text = f"{np.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {np.std(values, ddof=1):.{digits}f}"


def tables(runs: list[dict], presets: list[str]) -> str:
    """Return the Markdown tables of docs/explanation/pretraining.md: scores, the skill of each target, the probe."""
    by_preset = {preset: [run for run in runs if run["preset"] == preset] for preset in presets}
    lines = [
        "| preset | leak (largest) | test Huber | test MAE | profiled loss | test skill |",
        "|---|---|---|---|---|---|",
    ]
    for preset, rows in by_preset.items():
        leaks = [run["leak"] for run in rows if run["leak"] is not None]
        lines.append(
            f"| {preset} | {f'{max(leaks):.3g}' if leaks else 'nothing is hidden'} | "
            f"{spread([run['test']['val_huber'] for run in rows], 4)} | "
            f"{spread([run['test']['val_mae'] for run in rows], 4)} | "
            f"{spread([run['loss_profiled'][run['best_epoch']] for run in rows], 2)} | "
            f"{spread([run['skill']['test']['skill'] for run in rows])} |"
        )
    # Presets of one objective share their targets, and so a table.
    families: dict[tuple[str, ...], list[str]] = {}
    for preset, rows in by_preset.items():
        families.setdefault(tuple(name for name in rows[0]["skill"]["test"] if name != "skill"), []).append(preset)
    for names, members in families.items():
        lines += ["", "| test skill of | " + " | ".join(members) + " |", "|---|" + "---|" * len(members)]
        for name in names:
            cells = [spread([run["skill"]["test"][name] for run in by_preset[preset]]) for preset in members]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    columns = ("r2", "r2_random", "r2_inputs", "r2_gain", "r2_path")
    lines += [
        "",
        "| preset | " + " | ".join(f"`probe/{name}`" for name in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for preset, rows in by_preset.items():
        cells = [spread([run["probe"][name] for run in rows]) for name in columns]
        lines.append(f"| {preset} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["stones", "published", "path"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[13, 17, 23])
    parser.add_argument("--set", nargs="*", default=[], help="further parameters for every run, such as epochs=2")
    parser.add_argument("--out", type=Path, default=RESULTS / "pretraining.json")
    arguments = parser.parse_args()
    for preset in arguments.presets:
        yaml.safe_load((ROOT / f"configs/{preset}.yaml").read_text())  # a mistyped preset fails before hours of work
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    runs = []
    for preset in arguments.presets:
        for seed in arguments.seeds:
            runs.append(train(preset, seed, arguments.set))
            arguments.out.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=1) + "\n")
    print(tables(runs, arguments.presets))


if __name__ == "__main__":
    main()
