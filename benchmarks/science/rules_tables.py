"""The tables of docs/explanation/rules.md, from the results of the studies of rules.

python -m benchmarks.science.rules_tables
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from moola_mlflow.core import markdown_table

RESULTS = Path(__file__).resolve().parents[1] / "results"
ENCODERS = {
    "preset": ("bilstm32", "bilstm, hidden 32, 2 layers (preset)"),
    "mingru32": ("mingru32", "mingru, hidden 32, 2 layers"),
    "attention16": ("attention16", "attention, hidden 16, 3 layers"),
    "dilated32": ("dilated32", "dilated, hidden 32, 5 layers"),
}
"""Variants whose encoder differs: their names in encoders.json, and what the page calls them."""
BASELINE = "price-path features, span head"
JOINT = "joint_success_at_3"


def _interval(value: dict[str, float]) -> str:
    return f"{value['mean']:+.3f} ({value['lo']:+.3f} to {value['hi']:+.3f})"


def _name(row: dict[str, Any]) -> str:
    bars = "" if row["bars"] == "sample" else ", real ES bars"
    return f"labeller {row['labeller']}, {row['labels']} labels{bars}"


def main_table(rows: list[dict[str, Any]]) -> str:
    """Return what the prior reader and price-path features score, and the lines that were set before."""
    cells = []
    for row in rows:
        line = f"{row['line']:.2f}, {'met' if row['met'] else 'missed'}" if "line" in row else ""
        lowest, highest = min(row["joint_by_encoder"]), max(row["joint_by_encoder"])
        cells.append((
            _name(row), row["windows"], f"{row[f'{JOINT}_baseline']['mean']:.3f}",
            f"{row[JOINT]['mean']:.3f} ({lowest:.3f} to {highest:.3f})", _interval(row[f"{JOINT}_gain"]), line,
            f"{row['ece_without_temperature']:.3f}",
        ))  # fmt: skip
    heads = ("labels", "windows", BASELINE, "prior reader", "gain", "line", "ECE without temperature")
    return markdown_table(heads, cells)


def baseline_table(rows: list[dict[str, Any]]) -> str:
    """Return Joint@3 of each baseline and, in brackets, by how much the prior reader scores more."""
    names = [name for name in rows[0]["baselines"] if name != BASELINE]
    cells = []
    for row in rows:
        own = [row["baselines"][name] for name in names]
        cells.append((_name(row), *(f"{one[JOINT]['mean']:.3f}, {_interval(one[f'{JOINT}_gain'])}" for one in own)))
    return markdown_table(("labels", *names), cells)


def gate_table(rows: list[dict[str, Any]]) -> str:
    """Return the label-free figures of each length of training, and the gain over price-path features."""
    cells = [
        (row["steps"], f"{row['few_shot_gain']:.2f}", f"{row['probe_r2_gain']:+.3f}",
         *(_interval(row["joint_gain"][labeller]) for labeller in ("1", "2")))
        for row in rows
    ]  # fmt: skip
    heads = ("steps", "few-shot gain", "probe gain", "Joint@3 over price-path features, labeller 1", "labeller 2")
    return markdown_table(heads, cells)


def variants_table(result: dict[str, Any], step: str = "read") -> str:
    """Return what each variant of the preset scores in one step of the study, its gain, and what it costs."""
    rows, cost = result[step], result["pretrain_cpu_seconds"]
    columns = list(dict.fromkeys((row["labeller"], row["labels"]) for row in rows))
    cells = []
    for name in dict.fromkeys(row["variant"] for row in rows):
        own = {(row["labeller"], row["labels"]): row for row in rows if row["variant"] == name}
        gain = "" if name == "preset" else f"{sum(row['gain']['mean'] for row in own.values()) / len(own):+.3f}"
        seconds = [f"{value:.0f}" for key, value in cost.items() if key.rsplit("-", 1)[0] == name]
        scores = [
            f"{own[at]['joint']['mean']:.3f}" + ("" if name == "preset" else f", {_interval(own[at]['gain'])}")
            for at in columns
        ]
        cells.append((name, *scores, gain, *([", ".join(seconds)] if step == "read" else [])))
    heads = [f"labeller {labeller}, {count} labels" for labeller, count in columns]
    last = ["CPU seconds of pre-training"] if step == "read" else []
    return markdown_table(("variant", *heads, "mean gain", *last), cells)


def encoders_table(result: dict[str, Any], speed: dict[str, Any]) -> str:
    """Return quality against cost of each encoder: few-shot loss, mean Joint@3 over the labellers, and speed."""
    cells = []
    for variant, (name, about) in ENCODERS.items():
        few_shot = [value for key, value in result["few_shot"].items() if key.rsplit("-", 1)[0] == variant]
        joint = [
            np.mean([r["joint"]["mean"] for r in result["read"] if (r["variant"], r["labels"]) == (variant, count)])
            for count in (174, 60)
        ]
        own = speed["encoders"]["fp32"][name]
        rates = [f"{own[way]['median']:.2f}" for way in ("train", "read")]
        losses = ", ".join(f"{value:.2f}" for value in (few_shot[:2] if variant == "preset" else few_shot))
        cells.append((about, losses, *(f"{one:.3f}" for one in joint), *rates))
    heads = ("encoder", "few-shot loss", "Joint@3, 174 labels", "Joint@3, 60 labels", "training", "reading")
    return markdown_table(heads, cells)


def unfrozen_table(rows: list[dict[str, Any]]) -> str:
    """Return the gain of some epochs of training over the frozen encoder."""
    names = [name for name in dict.fromkeys(row["variant"] for row in rows) if name != "frozen"]
    cells = []
    for labeller, count in dict.fromkeys((row["labeller"], row["labels"]) for row in rows):
        own = {r["variant"]: r for r in rows if (r["labeller"], r["labels"]) == (labeller, count)}
        gains = [_interval(own[name]["gain"]) for name in names]
        cells.append((f"labeller {labeller}, {count} labels", f"{own['frozen']['joint']['mean']:.3f}", *gains))
    return markdown_table(("labels", "frozen", *names), cells)


def tables() -> list[str]:
    """Return all tables of the page."""
    names = ("rules_study", "rules_gate", "rules_variants", "rules_unfrozen", "encoders")
    study, gate, variants, unfrozen, speed = (
        json.loads((RESULTS / f"{name}.json").read_text("utf-8")) for name in names
    )
    rows, steps = study["rows"], ("read", "later", "real", "confirm")
    return [
        main_table(rows), baseline_table(rows), gate_table(gate["rows"]),
        *(variants_table(variants, step) for step in steps), encoders_table(variants, speed),
        unfrozen_table(unfrozen["read"]),
    ]  # fmt: skip


if __name__ == "__main__":
    print("\n\n".join(tables()))
