"""Write the report's sections on a pre-training: configuration, results, training time, checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence

from moola_mlflow.reports.document import Block, Code, Heading, Mono, Notice, Para, Picture, Strong, Table, Text
from moola_mlflow.reports.run_report.conclusions import IDENTITY, gate_text
from moola_mlflow.reports.run_report.facts import FINISHED, GateRow, Pretrained, number
from moola_mlflow.reports.run_report.next_steps import again
from moola_mlflow.tracking import Artifacts, Metrics, RunRecord, Tags
from moola_mlflow.training import describe_processes

ENCODER = (Artifacts.ENCODER_CARD, Artifacts.ENCODER_WEIGHTS)
SCORES = {"loss": "loss", "huber": "Huber", "mae": "MAE", "skill": "skill"}
CAPTIONS = {
    "loss_curves.png": "Loss, Huber and skill by epoch; the dotted line marks the epoch that was kept.",
    "learning_rate.png": "Learning rate at the end of each epoch.",
    "feature_quality.png": "The features of all windows, as the encoder reads them.",
}


def absent(what: str, command: str) -> Notice:
    """Return a notice for a part that is missing, with the command that makes it. ``what`` is a sentence."""
    return Notice((f"{what} Command: ", Mono(command)), "warn")


def configuration(run: RunRecord, version: str | None) -> list[Block]:
    """Return what was trained, on which data, by which code."""
    config, card = run.config, run.json(Artifacts.ENCODER_CARD) or {}
    get = lambda section, key: (config.get(section) or {}).get(key, run.params.get(f"{section}.{key}"))  # noqa: E731
    data: list[tuple[Text, ...]] = [
        (f"data: {name}", (Mono(sha256), f" (SHA-256), {int(rows):,} rows" if rows.isdigit() else " (SHA-256)"))
        for name, sha256, rows in run.inputs
    ]
    whole = run.tags.get(Tags.DATA_SHA256, "not recorded")
    windows = " / ".join(f"{int(run.metrics[f'{Metrics.SPLIT}{part}']):,} {part}" for part in ("train", "val", "test")
                         if f"{Metrics.SPLIT}{part}" in run.metrics)  # fmt: skip
    objective = dict(config.get("objective") or {})
    if "masked" not in str(objective.get("name")):
        objective = {key: objective[key] for key in ("name", "jitter_sigma") if key in objective}
    counts = [run.tags.get(tag, "?") for tag in (Tags.PROCESSES, Tags.SHARDS, Tags.THREADS)]
    rows: list[tuple[Text, ...]] = [
        ("run", (Mono(run.id), f" {run.name}")),
        ("status", Strong(run.status, run.status == FINISHED)),
        ("commit", commit(run)),
        ("configuration, SHA-256", Mono(run.tags.get(Tags.CONFIG_SHA256, "not recorded"))),
        *data,
        *([("bars, as read (SHA-256)", Mono(whole))] if whole not in {one[1] for one in run.inputs} else []),
        ("trained on", f"{card.get('trained_from', 'not recorded')} to {card.get('trained_until', 'not recorded')}"),
        ("windows", f"{windows or 'not recorded'}; {get('windows', 'length')} bars, stride {get('windows', 'stride')}"),
        ("features", str(get("features", "set"))),
        ("objective", ", ".join(f"{key} {value}" for key, value in objective.items()) or "not recorded"),
        ("encoder", ", ".join(f"{k} {v}" for k, v in (config.get("encoder") or {}).items())),
        ("training", f"{get('trainer', 'epochs')} epochs, batch {get('trainer', 'batch_size')}, lr "
                     f"{get('optimizer', 'lr')}, weight decay {get('optimizer', 'weight_decay')}"),
        ("seed", str(get("trainer", "seed"))),
        ("device", f"{run.tags.get(Tags.DEVICE, '?')}, {run.tags.get(Tags.PRECISION, '?')}, "
                   + describe_processes(*counts)),
        ("registered as", Mono(version) if version else "no model version"),
    ]  # fmt: skip
    blocks: list[Block] = [Heading("Configuration"), Table(["setting", "value"], rows)]
    if text := run.text(Artifacts.CONFIG):
        blocks += [Heading("The whole configuration", 3), Code(text)]
    return blocks


def commit(run: RunRecord) -> Text:
    """Return which code ran."""
    if Tags.COMMIT not in run.tags:
        return "not recorded"
    sha = Mono(run.tags[Tags.COMMIT])
    if Artifacts.GIT_DIFF not in run.files:
        return sha
    return (sha, " and ", Strong("changes that were not committed", False), " (git.diff on the run)")


def results(run: RunRecord, p: Pretrained) -> list[Block]:
    """Return the scores on validation and test, the probe and the gates."""
    blocks: list[Block] = [Heading("Results")]
    if not p.done:
        last = {k: v for k, v in sorted(run.metrics.items()) if k.startswith((Metrics.TRAIN, Metrics.VAL))}
        blocks.append(absent(f"There are no scores on the test part: the run is {p.status}.", again(run.id, p)))
        if last:
            blocks.append(Para(f"Its last values, after {p.epochs_run} epochs:"))
            blocks.append(Table(["metric", "last value"], [(Mono(k), f"{v:.5g}") for k, v in last.items()]))
        return [*blocks, *pictures(run)]
    if p.identity:
        blocks.append(Notice(IDENTITY, "bad"))
    return [*blocks, *_scores(run, p), *_levels(p), *_probe(p), *gate_table(p.gates), *pictures(run)]


def _scores(run: RunRecord, p: Pretrained) -> list[Block]:
    val = (run.json(Artifacts.TRAINING_RESULTS) or {}).get("val_metrics") or {}
    rows = []
    for name, title in SCORES.items():
        cells = [number(val.get(f"val_{name}")), run.metrics.get(f"{Metrics.TEST}{name}")]
        rows.append((title, *("–" if cell is None else f"{cell:.4f}" for cell in cells)))
    for key, value in sorted(run.metrics.items()):
        if key.startswith(Metrics.TEST_SKILL_OF):
            rows.append((key.removeprefix(Metrics.TEST).replace("_", " of ", 1), "–", f"{value:.4f}"))
    epoch = f"validation (epoch {p.best_epoch + 1})" if p.best_epoch is not None else "validation"
    blocks: list[Block] = [Table(["score", epoch, "test"], rows)]
    if p.baselines:
        ordered = sorted(p.baselines.items(), key=lambda row: row[1])
        hubers = ", ".join(f"{name} {value:.4f}" for name, value in ordered)
        blocks.append(Para(f"Skill is 1 - Huber / Huber of the best baseline. Baselines on the test part: {hubers}."))
    if Metrics.LEAK in run.metrics:
        leak = run.metrics[Metrics.LEAK]
        blocks.append(Para(f"Leak: {leak:g}. It is how much of the hidden input reaches the encoder, and must be 0."))
    return blocks


def _levels(p: Pretrained) -> list[Block]:
    levels = p.levels()
    if not levels:
        return []
    return [
        Heading("Published thresholds", 3),
        Para("They exist for the published objective alone, and judge how well it copies."),
        Table(["score", "value", "level"], [
            ("validation loss", f"{p.best_val_loss:.4f}", levels["val_loss"]),
            ("validation MAE", f"{p.best_val_mae:.4f}", levels["val_mae"]),
        ]),
    ]  # fmt: skip


def _probe(p: Pretrained) -> list[Block]:
    if not p.probe:
        return []
    names = {"r2": "encoder", "r2_random": "the same network at random", "r2_inputs": "raw inputs",
             "r2_gain": "gain over random", "r2_path": "net moves and excursions, encoder"}  # fmt: skip
    rows = [(names[k], f"{v:+.4f}" if k == "r2_gain" else f"{v:.4f}") for k, v in p.probe.items()]
    return [
        Heading("Probe", 3),
        Para("What a ridge regression reads about volatility and the place of extremes, on held-out bars (R2):"),
        Table(["read from", "R2"], rows),
    ]


def gate_table(rows: Sequence[GateRow]) -> list[Block]:
    """Return the gates with their margins."""
    if not rows:
        return []
    return [
        Heading("Gates", 3),
        Table(
            ["gate", "value", "needed", "result"],
            [
                (Mono(g.name), _value(g), Mono(f"{g.relation} {g.limit:g}"), Strong(gate_text(g), g.passed))
                for g in rows
            ],
        ),
    ]


def _value(gate: GateRow) -> str:
    return "missing" if gate.value is None else f"{gate.value:.4g}"


def pictures(run: RunRecord) -> list[Block]:
    """Return the curves, the newest reconstructions and the features."""
    names = [path for path in run.files if path.startswith(Artifacts.FIGURES) and path.endswith(".png")]
    last = max((path for path in names if path.startswith(Artifacts.RECONSTRUCTION_FIGURE)), default=None)
    captions = {f"{Artifacts.FIGURES}{name}": text for name, text in CAPTIONS.items()}
    if last:
        captions = {last: "Predictions on validation windows, at the newest epoch that has a picture.", **captions}
    order = [Artifacts.LOSS_CURVES_FIGURE, Artifacts.LEARNING_RATE_FIGURE]
    order += [path for path in (last, Artifacts.QUALITY_FIGURE) if path]
    return [
        Picture(f"pretrain-{path.removeprefix(Artifacts.FIGURES)}", png, captions[path])
        for path in order
        if path in run.files and (png := run.bytes(path))
    ]


def training_time(run: RunRecord, p: Pretrained) -> list[Block]:
    """Return how long the training took."""
    found = run.json(Artifacts.TRAINING_RESULTS)
    training = found if isinstance(found, dict) else {}
    history = training.get("history") or []
    seconds = [row[Metrics.EPOCH_SECONDS] for row in history if Metrics.EPOCH_SECONDS in row]
    rates = [row[Metrics.WINDOWS_PER_SECOND] for row in history if Metrics.WINDOWS_PER_SECOND in row]
    rows: list[tuple[Text, ...]] = [("epochs", f"{p.epochs_run} of {p.epochs_planned or '?'} planned")]
    if p.best_epoch is not None:
        rows.append(("best epoch", f"{p.best_epoch + 1}"))
    if seconds:
        rows.append(("one epoch", f"{sum(seconds) / len(seconds):.1f} s on average"))
    if rates:
        rows.append(("windows a second", f"{sum(rates) / len(rates):,.0f} in training"))
    if (total := number(training.get("total_time"))) is not None:
        rows.append(("whole run, with scoring", duration(total)))
    return [Heading("Training time"), Table(["measure", "value"], rows)]


def checkpoint(run: RunRecord, p: Pretrained, uri: str) -> list[Block]:
    """Return which files were kept, and how to load the encoder."""
    blocks: list[Block] = [Heading("Checkpoint")]
    kept = {path: size for path, size in run.files.items() if path.startswith(Artifacts.CHECKPOINTS) or path in ENCODER}
    if not kept:
        return [*blocks, absent("The run has logged no checkpoint.", again(run.id, p))]
    rows = [
        (Mono(path), f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB") for path, size in kept.items()
    ]
    blocks.append(Table(["artifact", "size"], rows))
    if Artifacts.ENCODER_CARD in run.files:
        blocks.append(Code(f"import moola_mlflow as moola\n\nencoder = moola.load_encoder({json.dumps(uri)})"))
    return blocks


def duration(seconds: float) -> str:
    """Return seconds in hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
