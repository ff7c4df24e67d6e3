"""main: the tour. It runs every command once on sample bars, as a user would type it, and shows each result."""

from __future__ import annotations

import time
from pathlib import Path

import mlflow

from moola_mlflow.cli.child_commands import ChildCommands
from moola_mlflow.core import Interrupts, TourKeys, TrainingError, markdown_table, model_name
from moola_mlflow.tracking import Artifacts, Metrics, Run, RunRecord, run_name

UNSEEN_SEED = 2001
"""Of the sample bars that detection scans: neither those of pre-training nor those of the labels."""
NUM_STEPS = 12
NUM_LABELS = 240
"""Windows that the rule looks at; more than half hold no event. With 120 the detector missed two gates."""
UNSEEN_BARS = 60_000
"""Sample bars, at most, that detection and evaluation read."""
NUM_RULES = 96
"""Rules that the tour draws: a minute of training serves them; the preset has 256."""


def run(config: TourKeys, preset: str, interrupts: Interrupts) -> None:
    """Go from raw bars to detections and a report, and choose the encoder by evidence on the way."""
    seed, started = config.trainer.seed, time.perf_counter()
    with Run.start("main", run_name("main", preset, seed, config.project.name), config.tracking.experiment) as active:
        active.config(config)
        folder = Path("out") / "tour"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise TrainingError(f"cannot write {folder} in {Path.cwd()}: {e}; run in a folder you may write to") from e
        experiment = mlflow.MlflowClient().get_experiment(active.experiment_id).name
        tour = ChildCommands(active, interrupts, folder, NUM_STEPS)
        encoder = _walk(tour, config, experiment)
        following = NEXT.format(encoder=encoder)
        seconds = time.perf_counter() - started
        active.metrics({Metrics.TOUR_SECONDS: seconds})
        table = markdown_table(("command", "result", "run"), tour.rows)
        active.note(f"**The tour: {len(tour.rows)} commands in {seconds:.0f} s.**\n\n{table}\n\nNext:\n\n{following}")
        print(f"\nThe tour took {seconds:.0f} s; its files are in {folder}, its runs in a browser: mlflow ui")
        print(f"\nNext:\n{following}", flush=True)


NEXT = """
    moola pretrain --bars my_bars.parquet --bars.instrument front --config configs/rules.yaml
    moola finetune --labels my_labels.parquet --encoder {encoder} --repeats 3
    moola sweep --base configs/rules.yaml --sweep.objective rules/few_shot --n_trials 20 --workers 2
""".strip("\n")


def _walk(tour: ChildCommands, config: TourKeys, experiment: str) -> str:
    """Run the steps one after another. Return the URI of the encoder to go on with."""
    folder, seed = tour.folder, config.trainer.seed
    bars, labels = folder / "bars.parquet", folder / "labels.parquet"
    project = config.project.name
    encoders, detectors_name = model_name(project, "encoder"), model_name(project, "detector")
    there, own = (
        {"tracking.experiment": experiment, "project": project},
        {"overwrite": "true"},
    )  # an earlier tour's files in its own folder
    sample = {"bars.sample_bars": config.bars.sample_bars, **there}
    network = {"encoder.hidden": config.encoder.hidden, "seed": seed, **there}

    tour.step("Bars, read and checked", "data", "the note", {"bars": "sample", "out": bars, **own, **sample})
    tour.step("Can these features be learned from?", "features", Artifacts.FIGURES, {"bars": bars, **there})

    training = {"bars": bars, "encoder.dropout": config.encoder.dropout, "epochs": config.trainer.epochs, **network}
    text = "An encoder that fills in hidden steps: the published method, without its flaw"
    tour.step(text, "pretrain", Artifacts.FIGURES, {"config": "configs/stones.yaml", **training})
    text = "An encoder that imitates random labelling rules"
    # Epochs count instead of steps, half as many again: after 8 epochs the gate is missed by 0.15, after 12 it is met.
    shorter = {"objective.num_rules": NUM_RULES, "trainer.steps": "none", "epochs": 3 * config.trainer.epochs // 2}
    rules = tour.step(text, "pretrain", Artifacts.FIGURES, {"config": "configs/rules.yaml", **training, **shorter})
    version = _version(encoders, rules)
    text = "The encoder trained on rules becomes champion, if it learns fresh rules much better than random weights do"
    promoted = tour.step(text, "promote", "the gates in the note", {"model": encoders, "version": version, **there})
    encoder = f"models:/{encoders}/{version}"

    text = "Windows that a rule labelled, and windows in which it found nothing, in bars of another seed"
    looked_at = {"n": NUM_LABELS, "label.rejects": "true", "out": labels, "seed": seed}
    tour.step(text, "label", Artifacts.LABELS_TABLE, {**looked_at, **own, **sample})
    reading = {
        "An event detector that reads price-path features, which learn nothing": {"finetune.inputs": "price_path"},
        "An event detector that reads that encoder as well, from the heads of its rules on": {"encoder": encoder},
    }
    detectors = [
        tour.step(text, "finetune", Artifacts.FIGURES, {"labels": labels, **inputs, **network})
        for text, inputs in reading.items()
    ]
    version = _version(detectors_name, max(detectors, key=lambda made: made.metrics[Metrics.CV_MAP]))
    text = "The detector that is better out of fold becomes champion, if it meets its gates"
    tour.step(text, "promote", "the gates in the note", {"model": detectors_name, "version": version, **there})

    unseen = {"bars": "sample", "bars.sample_seed": UNSEEN_SEED, "detector": f"models:/{detectors_name}/{version}"}
    fewer = {"bars.sample_bars": min(config.bars.sample_bars, UNSEEN_BARS), "out": folder, **own, **there}
    text = "Events in bars that nothing has seen, and what to expect of them"
    tour.step(text, "detect", Artifacts.DETECTIONS_PAGE, {**unseen, **fewer})
    text = "Which of these events the rule names too: precision, recall and errors"
    tour.step(text, "evaluate", Artifacts.EVALUATION_PAGE, {**unseen, **fewer})
    tour.step("The report", "report", "report/", {"run_id": rules.id, "out": folder, **own, **there})
    # If the promotion was refused, the alias is not set, or it names the encoder of an earlier tour.
    return f"models:/{encoders}@champion" if promoted.status == "FINISHED" else encoder


def _version(model: str, made: RunRecord) -> str:
    """Return the version that a run registered."""
    found = mlflow.MlflowClient().search_model_versions(f"name = '{model}' and run_id = '{made.id}'")
    if not found:
        raise TrainingError(f"run {made.id} registered no version of {model}")
    return str(found[0].version)
