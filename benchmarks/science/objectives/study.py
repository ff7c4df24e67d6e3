"""The study from end to end: pre-train, read, sum up. Not in __main__: worker processes find no functions there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from benchmarks.science.objectives import summary
from benchmarks.science.objectives.readers import LabelTask, Reader, labelled, predictions
from benchmarks.science.objectives.rows import READERS
from benchmarks.science.objectives.summary import Result
from benchmarks.science.objectives.variants import VARIANTS, Pretrained, Scale, pretrain
from benchmarks.synthetic_months import machine
from moola_mlflow.core import runtime
from moola_mlflow.evaluation.workers import run_tasks
from moola_mlflow.labels.overlap import overlap_groups
from moola_mlflow.training.head import HeadSettings


def _pretrain(scale: Scale, task: tuple[str, int]) -> Pretrained:
    return pretrain(VARIANTS[task[0]], task[1], scale)


def _read(context: tuple[list[Pretrained], Scale, HeadSettings], task: tuple[Reader, LabelTask, int]) -> Result:
    done, scale, settings = context
    reader, wanted, seed = task
    started, labels = time.perf_counter(), labelled(wanted, scale.bars)
    found = predictions(reader, done, labels, seed, scale, settings)
    return Result(reader.name, wanted, seed, found, overlap_groups(labels), time.perf_counter() - started)


def _in_pool(
    work: Callable[[Any, Any], Any], context: Any, tasks: Sequence[Any], workers: int, said: Callable[[Any], str]
) -> list[Any]:
    """Return the results in the order of the tasks, and tell of each as it comes."""
    out: dict[int, Any] = {}

    def heard(i: int, result: Any) -> None:
        out[i] = result
        print(f"{len(out)} of {len(tasks)}: {said(result)}", file=sys.stderr, flush=True)

    run_tasks(work, context, tasks, workers, heard)
    return [out[i] for i in range(len(tasks))]


def slow(reader: Reader, count: int) -> bool:
    """Return whether a row gets two seeds and one labelled set a labeller, to end in half an hour."""
    return reader.trained_on or count > 174


def study(
    scale: Scale, seeds: Sequence[int], label_seeds: Sequence[int], settings: HeadSettings, workers: int
) -> dict[str, Any]:
    """Run the whole study and return what the JSON holds."""
    load, started = os.getloadavg()[0], time.perf_counter()
    encoders = [(name, seed) for name in VARIANTS for seed in seeds]
    # The longest first, so that no worker is left alone with one at the end.
    encoders.sort(key=lambda task: (not VARIANTS[task[0]].trained, "+" not in task[0]))
    done: list[Pretrained] = _in_pool(
        _pretrain, scale, encoders, workers,
        lambda one: f"{one.variant}, seed {one.seed}: {one.seconds:.0f} s, probe gain {one.probe['r2_gain']:+.3f}",
    )  # fmt: skip
    tasks = [
        (reader, LabelTask(labeller, seed, count), repeat)
        for reader in READERS
        for count in reader.counts
        for labeller in (1, 2)
        for seed in label_seeds[: 1 if slow(reader, count) else None]
        for repeat in seeds[: 2 if slow(reader, count) else None]
    ]
    tasks.sort(key=lambda task: -task[1].count * (1 + 3 * task[0].trained_on))
    results: list[Result] = _in_pool(
        _read,
        (done, scale, settings),
        tasks,
        workers,
        lambda r: f"{r.reader}, {r.task}, seed {r.seed}: {r.seconds:.0f} s",
    )
    found = summary.rows(results, done)
    return {
        "machine": {**machine(), "precision": runtime.pick_precision("auto", torch.device("cpu"))},
        "settings": {
            "scale": asdict(scale), "seeds": list(seeds), "label_seeds": list(label_seeds), "workers": workers,
            "head": asdict(settings),
        },
        "seconds": time.perf_counter() - started,
        "worker seconds": {"encoders": sum(one.seconds for one in done), "readers": sum(r.seconds for r in results)},
        "load before and after": [load, os.getloadavg()[0]],
        "encoders": [{k: v for k, v in asdict(one).items() if k != "state"} for one in done],
        "rows": found,
        "threshold": summary.threshold(found),
    }  # fmt: skip
