"""Which pre-training helps a detector? Encoders, readers and labellers on fresh bars, beside the label-free probe.

    python -m benchmarks.science.objectives

About half an hour on two idle x86-64 cores; writes benchmarks/results/objectives.json and prints the tables of
docs/explanation/objectives.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.science.objectives import summary
from benchmarks.science.objectives.study import study
from benchmarks.science.objectives.variants import Scale
from moola_mlflow.core import runtime
from moola_mlflow.training.head import HeadSettings

RESULTS = Path(__file__).resolve().parents[2] / "results" / "objectives.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[13, 17, 23, 29], help="of encoders, folds and heads")
    parser.add_argument("--label-seeds", nargs="+", type=int, default=[1021], help="of the bars that are labelled")
    parser.add_argument("--bars", type=int, default=Scale.bars)
    parser.add_argument("--hidden", type=int, default=Scale.hidden)
    parser.add_argument("--epochs", type=int, default=Scale.epochs, help="of the longest pre-training")
    parser.add_argument("--head-epochs", type=int, default=HeadSettings.epochs)
    parser.add_argument("--workers", type=int, default=2, help="processes, with one torch thread each")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    runtime.tune_allocator()
    torch.set_num_threads(1)
    scale = Scale(arguments.bars, arguments.hidden, arguments.epochs)
    settings = replace(HeadSettings(), epochs=arguments.head_epochs)
    report = study(scale, arguments.seeds, arguments.label_seeds, settings, arguments.workers)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(summary.tables(report))


if __name__ == "__main__":
    main()
