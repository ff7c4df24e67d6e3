"""Name the commands to run next, from what a pre-training and its fine-tunings show and lack."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from moola_mlflow.reports.pretrain_results import (
    RECOMMENDED,
    bars_parameters,
    better_encoder_command,
    launcher_command,
    train_longer,
)
from moola_mlflow.reports.run_report.facts import FINISHED, Pretrained, Tuned
from moola_mlflow.tracking import RUNS, resume_command

PHASES = {"frozen": "Phase 1 (frozen encoder)", "unfrozen": "Phase 2 (unfrozen encoder)"}


@dataclass(frozen=True)
class Step:
    """A command, and the reason to run it next."""

    why: str
    command: str


def next_steps(
    run_id: str, encoder: str, p: Pretrained, tunings: Sequence[Tuned], detectors: Sequence[str]
) -> list[Step]:
    """Return the next commands, the most urgent first.

    ``encoder`` is the URI of the encoder. ``detectors`` are the URIs of registered versions that meet their gates.
    """
    if not p.done:
        return [_complete(run_id, p)]
    encoder = shlex.quote(encoder)  # a registered model may have any name
    finetune = f"mlflow run . -e finetune -P encoder={encoder}"
    steps = [*_better_encoder(p)]
    done = [tuned for tuned in tunings if tuned.done]
    for kind, preset in (("frozen", ""), ("unfrozen", " -P config=configs/phase2.yaml")):
        if not any(tuned.kind == kind for tuned in done):
            steps.append(Step(f"{PHASES[kind]} has no results yet.", f"{finetune}{preset}"))
    for uri in detectors:
        model, _, version = uri.removeprefix("models:/").rpartition("/")
        promote = f"mlflow run . -e promote -P model={shlex.quote(model)} -P version={version}"
        steps.append(Step("The detector meets its gates. Promote it.", promote))
    if any((over := t.least_sure()) and over[1].lo <= 0 <= over[1].hi and t.kind != "price_path" for t in done):
        why = "No gain is sure. Repeats make the figures steadier, more labels make the intervals narrower."
        steps.append(Step(why, f"{finetune} -P repeats=5"))
    if any(tuned.weak for tuned in done):
        why = "A rule made the labels. Only labels by people show what the detector is worth."
        steps.append(Step(why, f"{finetune} -P labels=my_labels.parquet"))
    if p.sample:
        own = f"mlflow run . -e pretrain -P config={RECOMMENDED} -P bars=my_bars.parquet"
        steps.append(Step("The bars are synthetic. Train on your own bars.", own))
    if len(done) > 1:
        ids = ",".join(tuned.run_id for tuned in done[-4:])
        steps.append(Step("Compare the fine-tunings.", f"mlflow run . -e compare -P run_ids={ids}"))
    return steps


def again(run_id: str, p: Pretrained) -> str:
    """Return the command that completes an unfinished pre-training."""
    return _complete(run_id, p).command


def _complete(run_id: str, p: Pretrained) -> Step:
    if p.status == "RUNNING":
        return Step("The training is still running. Run this when it has ended.", f"moola report --run_id {run_id}")
    if p.status == FINISHED:
        return Step("The run's artifacts are lost. Check the store.", "moola doctor")
    if p.epochs_run:
        return Step("Continue where the training stopped.", resume_command(RUNS / run_id))
    return Step("Train again.", launcher_command("pretrain", bars_parameters(p.bars)))


def _better_encoder(p: Pretrained) -> list[Step]:
    missed = any(gate is not None and not gate.passed for gate in map(p.gate, ("probe_r2_gain", "few_shot_gain")))
    if p.identity or (missed and p.objective != "rules"):
        why = f"The encoder adds too little. Pre-train one with {RECOMMENDED}."
        return [Step(why, better_encoder_command(p.bars, {}))]
    if missed and p.epochs_planned:
        why = "The encoder misses the gate of fresh rules. Train longer, or on more bars."
        return [Step(why, better_encoder_command(p.bars, train_longer(p.epochs_planned)))]
    return []
