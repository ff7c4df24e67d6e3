"""Describe a pre-training: its scores, the published results file, the encoder's card and the run's note."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from moola_mlflow.bars import Bars, utc
from moola_mlflow.core import PACKAGES, TrainingKeys, markdown_code
from moola_mlflow.evaluation import (
    Gate,
    ProbeScores,
    all_gates_passed,
    gates_summary,
    missed_gates,
    probe,
    published_levels,
)
from moola_mlflow.models import Encoder, describe_encoder, describe_training
from moola_mlflow.reports.document import Document, Heading
from moola_mlflow.reports.next_commands import better_encoder_command, finetune_command
from moola_mlflow.reports.plots.interactive import curves_chart
from moola_mlflow.reports.touchable import Plot, touch_page
from moola_mlflow.tracking import Metrics, VersionTags
from moola_mlflow.training import Trainer


@dataclass(frozen=True)
class Results:
    """Scores of the best epoch of a finished training."""

    config: TrainingKeys
    history: list[dict[str, float]]
    best_epoch: int
    val: dict[str, float]
    test: dict[str, float]
    baselines: dict[str, dict[str, float]]
    """Huber of each baseline, by part of the split."""
    leak: float | None
    groups: tuple[str, ...]
    """Names of groups of targets with a skill of their own, such as candle and state."""
    targets: tuple[str, ...]
    probe: ProbeScores
    few_shot: dict[str, float]
    """Of the objective rules: ``loss`` on fresh rules, that of the same network at ``random``, and the ``gain``."""
    identity: bool
    """Whether the encoder sees what it must reconstruct."""
    hides: bool
    """Whether the objective hides steps from the encoder."""
    seconds: float

    @property
    def chosen(self) -> dict[str, float]:
        """Metrics of the best epoch."""
        return self.history[self.best_epoch]

    @property
    def best_val_loss(self) -> float:
        """Validation loss at the epoch with the best validation Huber."""
        return self.chosen[Metrics.VAL_LOSS]

    def test_names(self) -> list[str]:
        """Return the names of the test scores that are tracked."""
        return [
            *("loss", "huber", "mae", "skill"),
            *(f"skill_{group}" for group in self.groups),
            *(f"mae_{target}" for target in self.targets),
        ]

    def metrics(self) -> dict[str, float]:
        """Return the metrics that are tracked once, at the end."""
        test = {f"{Metrics.TEST}{name}": self.test[name] for name in self.test_names()}
        return {Metrics.BEST_VAL_LOSS: self.best_val_loss, **test, **self.probe.metrics(), **self._fresh_rules()}

    def _fresh_rules(self) -> dict[str, float]:
        if not self.few_shot:
            return {}
        return {Metrics.FEW_SHOT_RANDOM: self.few_shot["random"], Metrics.FEW_SHOT_GAIN: self.few_shot["gain"]}

    def skills(self) -> dict[str, Any]:
        """Return every skill and the baselines behind it, for the artifact ``skill.json``."""
        parts = {"val": self.val, "test": self.test}
        skill = {
            part: {key.removeprefix("skill_"): value for key, value in scores.items() if key.startswith("skill")}
            for part, scores in parts.items()
        }
        return {"skill": skill, "baseline_huber": self.baselines}

    def published(self) -> dict[str, Any]:
        """Return the content of ``training_results.json``, under the published keys."""
        return {
            "best_val_loss": self.best_val_loss,
            "best_epoch": self.best_epoch,
            "test_metrics": {f"val_{name}": self.test[name] for name in self.test_names()},
            "total_time": self.seconds,
            "train_metrics": {f"train_{name}": self.chosen[f"{Metrics.TRAIN}{name}"] for name in ("loss", "mae")},
            "val_metrics": {k.replace("/", "_"): v for k, v in self.chosen.items() if k.startswith(Metrics.VAL)},
            "history": self.history,
            "config": self.config.model_dump(mode="json"),
            "seed": self.config.trainer.seed,
        }

    def curves_page(self, title: str) -> str:
        """Return a page of the curves that one can touch."""
        document = Document(title)
        document.add(Heading("Curves"))
        caption = "Drag to zoom, double-click to go back, click a name to hide its curve."
        return touch_page(document, [Plot("Curves", curves_chart(self.history, self.best_epoch), caption)])

    def headline(self) -> str:
        """Return the test scores in one line."""
        t = self.test
        return (
            f"loss {t['loss']:.4f}, Huber {t['huber']:.4f}, MAE {t['mae']:.4f}, skill {t['skill']:.3f}, "
            f"probe gain {self.probe.gain:+.3f}"
            + (f", few-shot gain {self.few_shot['gain']:.3f}" if self.few_shot else "")
        )


def _few_shot(trainer: Trainer, initial: Encoder) -> dict[str, float]:
    """Return the few-shot losses of the model and of its initial state, and their difference; none without rules."""
    own, random = (trainer.evaluation.further_scores(other).get(Metrics.FEW_SHOT) for other in (None, initial))
    return {} if own is None or random is None else {"loss": own, "random": random, "gain": random - own}


def score_encoder(
    trainer: Trainer, config: TrainingKeys, initial: Encoder, leak: float | None, started_at: float
) -> Results:
    """Score the trainer's model on validation and test, and probe it next to its initial state.

    Units: ``started_at`` in seconds of ``time.perf_counter``.
    """
    objective = trainer.model.objective
    test, val = trainer.evaluation.scores("test"), trainer.evaluation.scores("val")
    return Results(
        config=config,
        history=trainer.progress.history,
        best_epoch=trainer.progress.best_epoch,
        val=val,
        test=test,
        baselines={part: trainer.evaluation.baseline_hubers(part) for part in ("val", "test")},
        leak=leak,
        groups=tuple(name for name, members in objective.groups.items() if members),
        targets=objective.targets,
        probe=probe(trainer.model.encoder, initial, trainer.source, trainer.split, trainer.autocast),
        few_shot=_few_shot(trainer, initial),
        identity=objective.identity,
        hides=objective.checks_leak and not objective.identity,
        seconds=time.perf_counter() - started_at,
    )


def encoder_card(
    trainer: Trainer, results: Results, bars: Bars, quality: dict[str, Any], run_id: str
) -> dict[str, Any]:
    """Return everything that a user of the encoder needs, without access to the store.

    ``quality`` is the feature quality report of the training windows alone. Later data is compared with it.
    """
    windows, train, config = trainer.source.windows, trainer.split.train, results.config
    synthetic = config.bars.path == "sample"
    return {
        "model_id": f"moola-encoder-{run_id}",
        "created": f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "data": {
            "path": config.bars.path,
            "sha256": bars.sha256,
            "bar_minutes": bars.minutes,
            **({"sample_seed": config.bars.sample_seed, "sample_bars": config.bars.sample_bars} if synthetic else {}),
            "files": [{"name": Path(f.path).name, "sha256": f.sha256} for f in bars.files],
        },
        "trained_from": utc(int(windows.start_ns[train].min())),
        "trained_until": utc(int(windows.end_ns[train].max())),
        **describe_encoder(config, trainer.model.encoder),
        **describe_training(config),
        "epochs": results.best_epoch + 1,
        "best_val_loss": results.best_val_loss,
        "val_skill": results.val["skill"],
        "test_metrics": results.published()["test_metrics"],
        "leak": results.leak,
        "device": str(trainer.device),
        "precision": trainer.settings.precision,
        "threads": torch.get_num_threads(),
        "quality": quality,
        "probe": {name.removeprefix(Metrics.PROBE): value for name, value in results.probe.metrics().items()},
        **({"few_shot": results.few_shot} if results.few_shot else {}),
        "run_id": run_id,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def encoder_version_tags(
    card: dict[str, Any], preset: str, results: Results, checked: Sequence[Gate]
) -> dict[str, str]:
    """Return the tags of a registered encoder version."""
    return {
        VersionTags.PRESET: preset,
        VersionTags.DATA_SHA256: card["data"]["sha256"],
        VersionTags.TRAINED_FROM: card["trained_from"],
        VersionTags.TRAINED_UNTIL: card["trained_until"],
        VersionTags.FEATURES: card["features"]["set"],
        VersionTags.WINDOW: str(card["window"]["length"]),
        VersionTags.VAL_SKILL: f"{results.val['skill']:.4f}",
        VersionTags.GATES: gates_summary(checked),
        VersionTags.IDENTITY: str(results.identity).lower(),
    }


def pretrain_note(results: Results, preset: str, uri: str, checked: Sequence[Gate]) -> str:
    """Return the Markdown note of a finished run: the result, its meaning, the data, and the next command."""
    config, test = results.config, results.test
    skills = ", ".join(f"{group} {test[f'skill_{group}']:.3f}" for group in results.groups)
    groups = f" (skill of {skills})" if skills else ""
    if results.identity:
        meaning = (
            "Identity objective: the encoder saw the steps that it had to reconstruct. Its scores measure copying, "
            f"not understanding. Published levels: {_levels(results)}."
        )
    elif results.hides:
        meaning = (
            f"Hidden input does not reach the encoder (leak {results.leak:g}). But state features at visible steps are "
            "computed from hidden bars too, so part of the state skill is algebra."
        )
    elif results.few_shot:
        few = results.few_shot
        meaning = (
            "Weak supervision by random rules: nothing is hidden. Rules that were not trained on are learned from 60 "
            f"windows with loss {few['loss']:.3f}, by the same network at random with {few['random']:.3f}."
        )
    else:
        meaning = "Nothing is hidden from the encoder. The targets are summaries of the price path around each step."
    p = results.probe
    probed = (
        f"Probe: R2 {p.r2:.3f}, random network {p.r2_random:.3f}, raw inputs {p.r2_inputs:.3f}. A ridge regression "
        "reads volatility and the place of extremes from the frozen encoding, on test bars."
    )
    return (
        f"**Test:** {results.headline()}{groups} at epoch {results.best_epoch + 1} of {len(results.history)}.\n\n"
        f"{meaning}\n\n{probed}\n\n{_gate_note(checked)}\n\n"
        f"Preset {markdown_code(preset)}, objective `{config.objective.name}`, bars {markdown_code(config.bars.path)}, "
        f"seed {config.trainer.seed}, {math.ceil(results.seconds)} s.\n\n"
        f"{_next(config, uri, all_gates_passed(checked))}\n"
    )


def _next(config: TrainingKeys, uri: str, passed: bool) -> str:
    if passed:
        python = markdown_code(f"moola_mlflow.load_encoder({uri!r})")
        return f"Next: {markdown_code(finetune_command(uri, config.model_dump(mode='json')))}, or in Python {python}"
    trainer, why = config.trainer, ""
    longer: dict[str, Any] = {}
    if config.objective.name == "rules":
        why = " (train longer, or on more bars)"
        longer = {"trainer.steps": 2 * trainer.steps} if trainer.steps else train_longer(trainer.epochs)
    return f"Next{why}: {markdown_code(better_encoder_command(config.model_dump(mode='json'), longer))}"


def train_longer(epochs: int) -> dict[str, Any]:
    """Return the keys that train a preset for twice as many epochs, whatever it counts in."""
    return {"trainer.steps": "none", "epochs": 2 * epochs}


def _levels(results: Results) -> str:
    levels = published_levels(results.best_val_loss, results.chosen[Metrics.VAL_MAE])
    return (
        f"validation loss {results.best_val_loss:.4f} {levels['val_loss']}, "
        f"MAE {results.chosen[Metrics.VAL_MAE]:.4f} {levels['val_mae']}"
    )


def _gate_note(checked: Sequence[Gate]) -> str:
    if all_gates_passed(checked):
        return "**Gates:** passed."
    return "\n".join(["**Gates missed:**", "", *(f"- {text}" for text in missed_gates(checked))])
