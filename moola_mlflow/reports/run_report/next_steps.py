"""Name the commands to run next, from what a pre-training and its fine-tunings show and lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moola_mlflow.core import PretrainKeys
from moola_mlflow.reports.next_commands import (
    RECOMMENDED,
    TRAINED,
    better_encoder_command,
    carried,
    finetune_command,
    launcher_command,
    promote_command,
    repeat_command,
)
from moola_mlflow.reports.pretrain_results import train_longer
from moola_mlflow.reports.run_report.facts import FINISHED, Pretrained, Tuned
from moola_mlflow.tracking import RUNS, resume_command

STONES = "configs/stones.yaml"
"""The preset of `pretrain` where none is named."""
PHASES = {"frozen": "Phase 1 (frozen encoder)", "unfrozen": "Phase 2 (unfrozen encoder)"}


@dataclass(frozen=True)
class Step:
    """A command, and the reason to run it next."""

    why: str
    command: str


def next_steps(
    run_id: str, encoder: str, p: Pretrained, tunings: Sequence[Tuned], detectors: Mapping[str, Any]
) -> list[Step]:
    """Return the next commands, the most urgent first.

    ``encoder`` is the URI of the encoder. ``detectors``: the configuration of each fine-tuning that has registered a
    version that meets its gates, by the URI of the version.
    """
    if not p.done:
        return [_complete(run_id, p)]
    done = [tuned for tuned in tunings if tuned.done]
    like = done[-1].config if done else p.config
    steps = [*_better_encoder(p)]
    steps += [
        Step(f"{PHASES[kind]} has no results yet.", finetune_command(encoder, like, kind))
        for kind in PHASES
        if not any(tuned.kind == kind for tuned in done)
    ]
    steps += [
        Step("The detector meets its gates. Promote it.", promote_command(uri, made)) for uri, made in detectors.items()
    ]
    unsure = [t for t in done if t.kind in PHASES and (gain := t.least_sure()) and gain[1].lo <= 0 <= gain[1].hi]
    if unsure:
        why = "No gain is sure. Repeats make the figures steadier, more labels make the intervals narrower."
        steps.append(Step(why, repeat_command(encoder, unsure[-1].config, unsure[-1].kind, repeats=5)))
    weak = [t for t in done if t.weak and t.kind in PHASES]
    if weak:
        why = "A rule made the labels. Only labels by people show what the detector is worth."
        config = {name: section for name, section in weak[-1].config.items() if name != "labels"}
        steps.append(Step(why, repeat_command(encoder, config, weak[-1].kind, labels="my_labels.parquet")))
    project = carried(p.config, PretrainKeys, ("project",))
    if p.sample:
        own = launcher_command("pretrain", {"config": RECOMMENDED, "bars": "my_bars.parquet", **project})
        steps.append(Step("The bars are synthetic. Train on your own bars.", own))
    if len(done) > 1:
        ids = ",".join(tuned.run_id for tuned in done[-4:])
        steps.append(Step("Compare the fine-tunings.", launcher_command("compare", {"run_ids": ids, **project})))
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
    return Step("Train again.", launcher_command("pretrain", carried(p.config, PretrainKeys, TRAINED, STONES)))


def _better_encoder(p: Pretrained) -> list[Step]:
    missed = any(gate is not None and not gate.passed for gate in map(p.gate, ("probe_r2_gain", "few_shot_gain")))
    if p.identity or (missed and p.objective != "rules"):
        why = f"The encoder adds too little. Pre-train one with {RECOMMENDED}."
        return [Step(why, better_encoder_command(p.config, {}))]
    if missed and p.epochs_planned:
        why = "The encoder misses the gate of fresh rules. Train longer, or on more bars."
        return [Step(why, better_encoder_command(p.config, train_longer(p.epochs_planned)))]
    return []
