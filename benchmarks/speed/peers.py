"""The same pre-training four ways: a usual script in fp32 and in bf16, PyTorch Lightning, and this package.

    python -m benchmarks.speed.peers [--hidden 128] [--rounds 5] [--epochs 5] [--threads 2] [--seed 17]
        [--peers "usual script" "usual script, bf16" Lightning moola] [--smoke] [--out benchmarks/results/peers.json]

All train the network of configs/stones.yaml on the same windows for as many epochs, validate after each and log to a
SQLite store: the usual script with a DataLoader of 4 workers, fp32 and ``.item()`` a batch; the same with bf16
autocast; Lightning with its MLflow logger at its default settings; this package at its own. Rounds go A B C D A B C D,
each run in a process of its own. A round has a seed of its own: with it all begin at the same weights, and each draws
its order of windows, masks and dropout. Two speeds: of the whole process, imports and features included, and steady, of
the epochs after the first. Features are ready in memory for the peers, which flatters them. At the end each network is
scored by the same code on the same masks of the validation windows, in fp32 whatever it was trained in; Hubers are
compared within a round.

A run at another ``--hidden`` keeps what the file has of other sizes: each size has a key of its own under ``sizes``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.table import spread

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
BF16 = "usual script, bf16"
PEERS = ("usual script", BF16, "Lightning", "moola")
WORKERS = 4
DEFAULT_SIZE = 128


def prepared(arguments: argparse.Namespace) -> tuple[Any, ...]:
    """Return configuration, data and a model: the same for all."""
    import torch

    from moola_mlflow.core import PretrainKeys, make_config, read_preset
    from moola_mlflow.training.setup import build_model, prepare

    overrides = {
        "bars.sample_bars": arguments.bars, "trainer.epochs": arguments.epochs, "encoder.hidden": arguments.hidden,
        "trainer.patience": arguments.epochs, "trainer.seed": arguments.seed,
    }  # fmt: skip
    config = make_config(PretrainKeys, read_preset(ROOT / "configs" / "stones.yaml"), overrides)
    data = prepare(config, torch.device("cpu"))
    return config, data, build_model(config, data.source, data.mean, data.std)


class Plain:
    """What a script has instead of a trainer: tensors in memory, a loss of a batch, a schedule."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        import torch
        from torch.utils.data import DataLoader, TensorDataset

        from moola_mlflow.core.runtime import seeded_generator
        from moola_mlflow.models.encoders.keyed_dropout import use_torch_dropout
        from moola_mlflow.training.schedule import lr_factor
        from moola_mlflow.windows.batches import Batch

        self.config, self.data, self.model = prepared(arguments)
        use_torch_dropout(self.model)
        self.draws = seeded_generator(
            arguments.seed, 1
        )  # order and dropout: torch's own, which the model's seed has set
        source, split = self.data.source, self.data.split
        no_prices = torch.zeros(1)

        def loader(part: Any, shuffle: bool) -> Any:
            tensors = TensorDataset(torch.from_numpy(source.features(part)))
            size = self.config.trainer.batch_size
            return DataLoader(tensors, size, shuffle=shuffle, num_workers=WORKERS, persistent_workers=True)

        def loss(x_BTF: Any) -> Any:
            batch = Batch(x_BTF, no_prices, range(len(x_BTF)), source.warmup)  # type: ignore[arg-type]
            return self.model.objective.loss(self.model.objective(self.model.encoder, batch, self.draws))

        self.loss, self.train, self.val = loss, loader(split.train, True), loader(split.val, False)
        self.loaders = (self.train, self.val)
        total = len(self.train) * arguments.epochs
        warmup = min(round(self.config.schedule.warmup_epochs * len(self.train)), total // 2)
        self.factor = lambda step: lr_factor(step, total, warmup, self.config.schedule.final_fraction)

    def optimizer(self) -> tuple[Any, Any]:
        import torch

        settings = self.config.optimizer
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor)


def usual(arguments: argparse.Namespace) -> tuple[Any, list[float]]:
    """Train as most scripts do: in fp32, or with autocast to bf16."""
    import mlflow
    import torch

    plain = Plain(arguments)
    optimizer, scheduler = plain.optimizer()
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=arguments.child == BF16)
    at = []
    with mlflow.start_run():
        for epoch in range(arguments.epochs):
            at.append(time.perf_counter())
            plain.model.train()
            total = 0.0
            for (x,) in plain.train:
                optimizer.zero_grad()
                with autocast:
                    loss = plain.loss(x)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(plain.model.parameters(), plain.config.trainer.clip_norm)
                optimizer.step()
                scheduler.step()
                total += loss.item()
            plain.model.eval()
            with torch.no_grad(), autocast:
                val = sum(plain.loss(x).item() for (x,) in plain.val) / len(plain.val)
            mlflow.log_metrics({"train_loss": total / len(plain.train), "val_loss": val}, step=epoch)
    return plain, [*at, time.perf_counter()]


def lightning(arguments: argparse.Namespace) -> tuple[Any, list[float]]:
    """Train with Lightning's Trainer at its default settings and its MLflow logger."""
    import lightning as L
    from lightning.pytorch.loggers import MLFlowLogger

    plain = Plain(arguments)
    at: list[float] = []

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = plain.model

        def training_step(self, batch: Any, _: int) -> Any:
            loss = plain.loss(batch[0])
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("val_loss", plain.loss(batch[0]))

        def configure_optimizers(self) -> Any:
            optimizer, scheduler = plain.optimizer()
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

        def on_train_epoch_start(self) -> None:
            at.append(time.perf_counter())

    trainer = L.Trainer(
        max_epochs=arguments.epochs, gradient_clip_val=plain.config.trainer.clip_norm, accelerator="cpu",
        logger=MLFlowLogger(tracking_uri=os.environ["MLFLOW_TRACKING_URI"]),
    )  # fmt: skip
    trainer.fit(Module(), plain.train, plain.val)
    return plain, [*at, time.perf_counter()]


def moola(arguments: argparse.Namespace) -> tuple[Any, list[float]]:
    """Train with this package: its trainer, its checkpoints, its tracked run."""
    from moola_mlflow.core import runtime

    runtime.prepare_environment()
    runtime.tune_allocator()
    runtime.set_threads()
    import torch

    from moola_mlflow.models.files.checkpoint import Checkpointer, about_training
    from moola_mlflow.tracking.run import Run
    from moola_mlflow.training.events import EpochEnded
    from moola_mlflow.training.trainer import Trainer, TrainerSettings

    config, data, model = prepared(arguments)
    precision = runtime.pick_precision("auto", torch.device("cpu"))
    with Run.start("pretrain", "peers") as active:
        checkpointer = Checkpointer(active.folder / "checkpoints", about_training(config, active.id))
        trainer = Trainer(model, data.source, data.split, TrainerSettings.of(config, precision), checkpointer)
        trainer.evaluation.fit_baselines()
        at = [time.perf_counter()]

        def track(event: Any) -> None:
            if isinstance(event, EpochEnded):
                active.metrics(event.metrics, step=event.epoch)
                at.append(time.perf_counter())

        trainer.subscribers = (track,)
        trainer.fit()
    return SimpleNamespace(config=config, data=data, model=model, loaders=()), at


def child(arguments: argparse.Namespace) -> None:
    """Be one peer: train, say when training was over and what it had cost, and score the network."""
    import torch

    if arguments.child != "moola":
        torch.set_num_threads(arguments.threads)
    trained, at = {"usual script": usual, BF16: usual, "Lightning": lightning, "moola": moola}[arguments.child](
        arguments
    )
    ended = time.time()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]

    for iterator in [loader._iterator for loader in trained.loaders if loader._iterator]:
        iterator._shutdown_workers()  # their time counts only when they have ended
    used[1] = resource.getrusage(resource.RUSAGE_CHILDREN)
    num_train = len(trained.data.split.train)
    steady = (len(at) - 2) * num_train / (at[-1] - at[1])
    print(
        json.dumps(
            {
                "ended": ended, "cpu_s": sum(one.ru_utime + one.ru_stime for one in used), "steady": steady,
                "windows": num_train * arguments.epochs, **judged(trained),
            }
        )
    )  # fmt: skip


def judged(trained: Any) -> dict[str, Any]:
    """Score a trained network on the validation windows, with a trainer of its own so that all are scored alike."""
    from moola_mlflow.training.trainer import Trainer, TrainerSettings

    data = trained.data
    judge = Trainer(trained.model, data.source, data.split, TrainerSettings.of(trained.config))
    judge.evaluation.fit_baselines()
    return {"val_huber": judge.evaluation.scores("val")["huber"], "judged_in": judge.settings.precision}


class Memory(threading.Thread):
    """The largest memory that a process and its children hold together, pages they share counted once each."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.over = pid, 0, False

    def run(self) -> None:
        import psutil

        while not self.over:
            try:
                whole = psutil.Process(self.pid)
                held = [one.memory_full_info() for one in (whole, *whole.children(recursive=True))]
                self.peak = max(self.peak, sum(getattr(info, "pss", info.rss) for info in held))
            except psutil.Error:
                pass
            time.sleep(1.0)


def measure(peer: str, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Run one peer in a process and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment["OMP_NUM_THREADS"] = str(arguments.threads)
        if not arguments.smoke:  # there the peer makes its store itself: its time says nothing
            subprocess.run([sys.executable, "-c", "import mlflow; mlflow.search_experiments()"],
                           env=environment, cwd=folder, check=True, capture_output=True)  # fmt: skip
        words = [f"--{key}={getattr(arguments, key)}" for key in ("epochs", "bars", "hidden", "threads")]
        words.append(f"--seed={seed}")
        began = time.time()
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.peers", "--child", peer, *words],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        memory = Memory(process.pid)
        memory.start()
        out, errors = process.communicate()
        memory.over = True
        if process.returncode:
            raise SystemExit(f"{peer}: {errors[-3000:]}")
    found = json.loads(out.strip().splitlines()[-1])
    return {
        "whole": found["windows"] / (found["ended"] - began), "steady": found["steady"],
        "per_cpu_s": found["windows"] / found["cpu_s"], "val_huber": found["val_huber"],
        "peak_mb": memory.peak / 1e6, "load": os.getloadavg()[0], "seed": seed, "judged_in": found["judged_in"],
    }  # fmt: skip


def differences(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[float]:
    """Return our Huber less theirs, as a share of theirs, within each round."""
    return [a["val_huber"] / b["val_huber"] - 1 for a, b in zip(ours, theirs, strict=True)]


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Return medians (smallest to largest), and ratios and differences within each round."""
    lines = [
        "| | windows/s, whole process | steady | windows/CPU-s | peak MB | val Huber; ours less theirs |",
        "|---|---|---|---|---|---|",
    ]
    for peer, runs in rows.items():
        cells = []
        for key, digits in (("whole", 0), ("steady", 0), ("per_cpu_s", 0), ("peak_mb", 0), ("val_huber", 4)):
            cells.append(spread([run[key] for run in runs], f".{digits}f"))
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    ours = rows["moola"]
    for peer in PEERS[:-1]:
        if peer in rows:
            ratios = {
                key: [a[key] / b[key] for a, b in zip(ours, rows[peer], strict=True)]
                for key in ("whole", "steady", "per_cpu_s")
            }
            shown = [spread(r, ".2f") for r in ratios.values()]
            less = spread(differences(ours, rows[peer]), "+.2%")
            lines.append(f"| moola / {peer} | {' | '.join(shown)} | | {less} |")
    return "\n".join(lines)


def tables(report: dict[str, Any]) -> str:
    """Return the table of each size of the network in a result's file."""
    sizes = [(report["about"]["hidden"], report), *report.get("sizes", {}).items()]
    return "\n\n".join(f"hidden {size}\n\n{table(one['runs'])}" for size, one in sizes)


def merged(path: Path, size: int, result: dict[str, Any]) -> dict[str, Any]:
    """Return a result beside those of other sizes in its file. That of the default size is at the top."""
    before = json.loads(path.read_text()) if path.is_file() else {}
    sizes = before.pop("sizes", {})
    if size != DEFAULT_SIZE:
        return {**before, "sizes": {**sizes, str(size): result}}
    return {**result, "sizes": sizes} if sizes else result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--bars", type=int, default=200_000)
    parser.add_argument("--hidden", type=int, default=DEFAULT_SIZE)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=17, help="of the first round; each takes the next")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    parser.add_argument("--smoke", action="store_true", help="the smallest run of everything: no figures to quote")
    parser.add_argument("--child", choices=PEERS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "peers.json")
    arguments = parser.parse_args()
    size = arguments.hidden
    if arguments.smoke:
        arguments.rounds, arguments.epochs, arguments.bars, arguments.hidden = 1, 2, 12_000, 8
    if arguments.child:
        child(arguments)
        return
    rows: dict[str, list[dict[str, Any]]] = {peer: [] for peer in arguments.peers}
    for seed in range(arguments.seed, arguments.seed + arguments.rounds):
        for peer in arguments.peers:
            rows[peer].append(measure(peer, arguments, seed))
            print(f"{peer}: {rows[peer][-1]}", file=sys.stderr, flush=True)
    if "moola" in rows:
        print(table(rows))
    from benchmarks.synthetic_months import machine  # not at the top: what it imports is no part of a peer

    about = {key: getattr(arguments, key) for key in ("threads", "epochs", "bars", "hidden", "seed", "smoke")}
    if "Lightning" in rows:
        about["lightning"] = importlib.metadata.version("lightning")
    ours = rows.get("moola", [])
    found = {peer: differences(ours, runs) for peer, runs in rows.items() if ours and peer != "moola"}
    result = {"machine": machine(), "about": about, "runs": rows, "huber_differences": found}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(merged(arguments.out, size, result), indent=1) + "\n")


if __name__ == "__main__":
    main()
