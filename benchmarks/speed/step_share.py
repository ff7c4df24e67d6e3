"""Where the CPU time of a training step goes: oneDNN's LSTM primitive, and everything else by kind.

    python -m benchmarks.speed.step_share [--rounds 5] [--seconds 5] [--hidden 128 32] [--precisions bf16 fp32]
        [--smoke] [--out benchmarks/results/step_share.json]

Whole steps of the trainer on configs/stones.yaml, batch 64, one thread. ``torch.profiler`` says how long each operation
runs without those that it calls. The primitive is ``aten::mkldnn_rnn_layer`` and its backward, with the casts and
reorders of weights inside both. A backward operation belongs where its forward one does.

The profiler itself costs time, nearly all of it outside of the primitive, whose operations are few and long. So steps
with and without the profiler take turns, and its cost, the difference of their CPU times, is taken off what lies
outside: outside = 1 - (primitive / profiled wall time) * (profiled CPU time / plain CPU time). The kinds share that in
the proportions that the profiler has seen. This assumes that other work on the machine slows all
operations alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.synthetic_months import machine
from benchmarks.table import spread
from moola_mlflow.core import PretrainKeys, make_config, runtime

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "step_share.json"
ALLOWED = {128: 0.10, 32: 0.15}
"""Largest share outside of the primitive, by hidden size."""
PRIMITIVE, REST = "LSTM primitive", "Python and the rest"
COPIES = ("copy_", "to", "_to_copy", "clone", "contiguous", "ToCopyBackward0")
BY_OPERATION = {
    **dict.fromkeys(COPIES, "copies and casts"),
    **dict.fromkeys(("cat", "stack", "CatBackward0", "StackBackward0"), "joining directions"),
}
WHOLE = "step of training"


def kinds_of_calls() -> list[tuple[Any, str, str]]:
    """Return what belongs to one kind, whatever it calls: an owner, the name of its function, the kind."""
    from torch import nn

    from moola_mlflow.models.encoders.keyed_dropout import Dropout
    from moola_mlflow.models.objectives.masked import Masked

    return [
        (Dropout, "forward", "dropout"),
        (Masked, "draw", "masks"),
        (Masked, "encoder_input", "scaling, jitter, token"),
        (Masked, "errors", "decoder and loss"),
        (Masked, "loss", "decoder and loss"),
        (nn.utils, "clip_grad_norm_", "clipping"),
    ]


def marked(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """Return a function whose calls the profiler sees under the name of their kind."""
    from torch.profiler import record_function

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(kind):
            return function(*args, **kwargs)

    return call


def plain(name: str) -> str:
    """Return the name of an operation without the words around it."""
    return name.removeprefix("autograd::engine::evaluate_function: ").removeprefix("aten::")


def kinds_of(events: list[Any], kinds: set[str]) -> Counter[str]:
    """Return microseconds by kind, of the operations inside of steps."""
    named: dict[int, str | None] = {}
    by_forward: dict[int, str] = {}

    def kind_of(event: Any) -> str | None:
        """Return the kind of the outermost caller that has one, but the primitive's always; None outside of steps."""
        if event.id in named:
            return named[event.id]
        name, caller = plain(event.name), event.cpu_parent
        found = REST if name == WHOLE else kind_of(caller) if caller is not None else None
        if found is not None and found != PRIMITIVE:
            if name.startswith(("mkldnn_rnn_layer", "MkldnnRnnLayerBackward")):
                found = PRIMITIVE if name.startswith("mkldnn_rnn_layer") else found
            elif name in kinds:
                found = name
            elif name.startswith("Optimizer."):
                found = "optimiser"
            elif found not in BY_OPERATION.values():
                forward = by_forward.get(event.sequence_nr) if "Backward" in name else None
                found = BY_OPERATION.get(name) or forward or found
        named[event.id] = found
        if found and event.sequence_nr >= 0 and "Backward" not in name:
            by_forward.setdefault(event.sequence_nr, found)
        return found

    spent: Counter[str] = Counter()
    for event in sorted(events, key=lambda one: one.time_range.start):
        if (kind := kind_of(event)) is not None:
            spent[kind] += event.self_cpu_time_total
    return spent


def make_trainer(bars: int, hidden: int, precision: str) -> Any:
    import torch

    from moola_mlflow.core import read_preset
    from moola_mlflow.training.setup import build_trainer, prepare

    overrides = {"bars.sample_bars": bars, "encoder.hidden": hidden, "runtime.shards": 1}
    config = make_config(PretrainKeys, read_preset(ROOT / "configs" / "stones.yaml"), overrides)
    return build_trainer(config, prepare(config, torch.device("cpu")), precision)


def endless(trainer: Any) -> Iterator[Any]:
    """Yield whole batches for ever, made before they are timed: features are no part of these steps."""
    size = trainer.settings.trainer.batch_size
    batches = [batch for batch in trainer.source.batches(trainer.split.train, size) if len(batch.index) == size]
    while True:
        yield from batches


def step(trainer: Any, batch: Any) -> None:
    trainer._step(batch)
    trainer._update()


def measure(trainer: Any, batches: Iterator[Any], seconds: float) -> dict[str, Any]:
    """Return one round: CPU milliseconds of a plain step, the share of each kind, and what the profiler has seen.

    After few steps the profiler's own cost is noise that can exceed what lies outside: a share may then be below 0.
    """
    from torch.profiler import ProfilerActivity, profile, record_function

    calls = kinds_of_calls()
    started, cpu = time.perf_counter(), {"plain": 0.0, "profiled": 0.0}
    spent: Counter[str] = Counter()
    num = 0
    while time.perf_counter() - started < seconds:
        before = time.process_time()
        step(trainer, next(batches))
        cpu["plain"] += time.process_time() - before
        with ExitStack() as stack:
            for owner, name, kind in calls:
                stack.enter_context(patch.object(owner, name, marked(getattr(owner, name), kind)))
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                before = time.process_time()
                with record_function(WHOLE):
                    step(trainer, next(batches))
                cpu["profiled"] += time.process_time() - before
        spent += kinds_of(list(profiler.events()), {kind for _, _, kind in calls})
        num += 1
    seen_ms = {kind: took / 1e3 / num for kind, took in spent.most_common()}
    took = sum(spent.values())
    inside = spent.pop(PRIMITIVE) / took * cpu["profiled"] / cpu["plain"]
    outside = {kind: (1 - inside) * own / sum(spent.values()) for kind, own in spent.most_common()}
    return {
        "plain_ms": 1e3 * cpu["plain"] / num, "profiled_ms": 1e3 * cpu["profiled"] / num, "steps": num,
        "outside": 1 - inside, "kinds": outside, "seen_ms": seen_ms,
    }  # fmt: skip


def tables(report: dict[str, Any]) -> str:
    """Return a column for each network and precision: medians (smallest to largest) of the rounds."""
    rows = report["runs"]
    names = [
        kind
        for kind, _ in sum((Counter(run["kinds"]) for runs in rows.values() for run in runs), Counter()).most_common()
    ]
    lines = ["| | " + " | ".join(rows) + " |", "|" + "---|" * (1 + len(rows))]
    for what, form, of in (
        ("CPU ms a step", ".1f", lambda run: run["plain_ms"]),
        ("outside of the primitive", ".1%", lambda run: run["outside"]),
    ):
        lines.append(
            f"| {what} | " + " | ".join(spread([of(run) for run in runs], form) for runs in rows.values()) + " |"
        )
    for kind in names:
        cells = [f"{statistics.median(run['kinds'].get(kind, 0.0) for run in runs):.1%}" for runs in rows.values()]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--bars", type=int, default=60_000)
    parser.add_argument("--hidden", type=int, nargs="+", default=list(ALLOWED))
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    parser.add_argument("--smoke", action="store_true", help="the smallest run of everything: no figures to quote")
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    if words.smoke:
        words.rounds, words.seconds, words.bars, words.hidden, words.precisions = 1, 0.1, 12_000, [8], ["fp32"]
    runtime.prepare_environment()
    runtime.tune_allocator()
    runtime.set_threads()
    trainers = {}
    for hidden in words.hidden:
        for precision in words.precisions:
            trainer = make_trainer(words.bars, hidden, precision)
            trainer.model.train()
            trainers[f"hidden {hidden}, {precision}"] = trainer, endless(trainer)
    rows: dict[str, list[dict[str, Any]]] = {}
    for turn in range(1 + words.rounds):
        for name, (trainer, batches) in trainers.items():
            found = measure(trainer, batches, words.seconds if turn else 0.1)
            if turn:  # the first one warms up
                rows.setdefault(name, []).append(found)
    about = {
        "batch_size": 64, "threads": 1, "seconds": words.seconds, "smoke": words.smoke,
        "allowed": {str(hidden): share for hidden, share in ALLOWED.items()},
    }  # fmt: skip
    report = {"machine": machine(), "about": about, "runs": rows}
    print(tables(report))
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
