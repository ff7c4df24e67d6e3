"""What may be concluded, by rule, and which command follows. Every sentence holds the figures that it rests on."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from moola_mlflow.evaluation import FEW_UNITS, OTHER_INPUTS, PATH_FEATURES, TITLES, Interval
from moola_mlflow.reports.pretrain_results import bars_parameters, better_encoder_command, launcher_command
from moola_mlflow.reports.run_report.facts import FINISHED, GateRow, Pretrained, Tuned

FREEZE = {"frozen": "phase 1 (frozen encoder)", "unfrozen": "phase 2 (encoder trained on)"}
IDENTITY = (
    "Identity objective: the encoder saw the very steps that it had to reconstruct. Its loss, MAE and skill measure "
    "copying, not understanding."
)


@dataclass(frozen=True)
class Conclusion:
    """One conclusion."""

    text: str
    good: bool | None = None
    """Whether it is good news; None for neither."""


@dataclass(frozen=True)
class Step:
    """A command, and why it is the next."""

    why: str
    command: str


def signed(i: Interval) -> str:
    """Return a difference with its interval."""
    return f"{i.mean:+.3f} [{i.lo:+.3f}, {i.hi:+.3f}]"


def shown(i: Interval) -> str:
    """Return a score with its interval."""
    return f"{i.mean:.3f} [{i.lo:.3f}, {i.hi:.3f}]"


def title(method: str, kind: str = "") -> str:
    """Return what a method is called in words, beside a detector of this kind."""
    titles = {**TITLES, **OTHER_INPUTS} if kind == "price_path" else TITLES
    return titles.get(method, method)


def honest_sentence(pretrained: Pretrained, tunings: Sequence[Tuned]) -> Conclusion:
    """Return in one sentence whether the pre-training helped: the headline of its last finished fine-tuning."""
    done = [tuned for tuned in tunings if tuned.done]
    if not done:
        return Conclusion("Whether this pre-training helps is not known: no fine-tuning of its encoder has finished.")
    last = done[-1]
    return Conclusion(last.headline, {"gain": True, "loss": False}.get(last.claim() or ""))


def of_pretraining(p: Pretrained) -> list[Conclusion]:
    """Return what a pre-training shows by itself."""
    if not p.done:
        planned = f" of {p.epochs_planned}" if p.epochs_planned else ""
        return [Conclusion(f"There are no results: the run is {p.status} after {p.epochs_run}{planned} epochs.", False)]
    out = []
    if p.status != FINISHED:
        out.append(Conclusion(f"The run is {p.status}, though its results are there: read its note.", False))
    if p.identity:
        levels = ", ".join(f"{name.replace('_', ' ')} {level}" for name, level in p.levels().items())
        out.append(Conclusion(f"{IDENTITY} At the published thresholds: {levels or 'no figures'}.", False))
    else:
        out += _skill(p)
    out += _probe(p)
    if (
        p.best_epoch is not None
        and p.epochs_run > 1
        and p.best_epoch == p.epochs_run - 1 == (p.epochs_planned or 0) - 1
    ):
        out.append(
            Conclusion(
                f"The last of {p.epochs_run} epochs was the best: the training had not levelled off when it ended."
            )
        )
    return out


def _skill(p: Pretrained) -> list[Conclusion]:
    if p.test_skill is None or p.test_huber is None or not p.baselines:
        return []
    best = min(p.baselines, key=lambda name: p.baselines[name])
    against = (
        f"Huber {p.test_huber:.4f} against {p.baselines[best]:.4f} of the best baseline ({best}), "
        f"skill {p.test_skill:.3f}"
    )
    gate = p.gate("skill")
    if p.test_skill <= 0:
        return [Conclusion(f"On the test bars it predicts no better than a baseline: {against}.", False)]
    if gate is not None and p.test_skill <= gate.limit:
        return [Conclusion(f"On the test bars it beats the baselines by less than {gate.limit:g}: {against}.", False)]
    return [Conclusion(f"On the test bars it predicts better than every baseline: {against}.", True)]


def _probe(p: Pretrained) -> list[Conclusion]:
    gain, r2, inputs = p.probe.get("r2_gain"), p.probe.get("r2"), p.probe.get("r2_inputs")
    if gain is None or r2 is None:
        return []
    gate = p.gate("probe_r2_gain")
    figures = f"R2 {r2:.3f}, gain {gain:+.3f} over the same network at random"
    if gate is not None and gate.passed:
        text, good = f"What it adds to a random network is worth {figures}: above the gate of {gate.limit:g}", True
    elif gain > 0:
        limit = f", and the gate asks for {gate.limit:g}" if gate is not None else ""
        text, good = f"The probe reads hardly more from it than from a random network: {figures}{limit}", False
    else:
        text, good = f"The probe reads no more from it than from a random network: {figures}", False
    if inputs is not None and r2 <= inputs:
        text, good = f"{text}. The raw inputs give as much or more (R2 {inputs:.3f})", False
    return [Conclusion(f"{text}.", good)]


def of_tuning(t: Tuned) -> list[Conclusion]:
    """Return what a fine-tuning shows, the gain first."""
    if not t.done:
        return [Conclusion(f"{_phase(t)}: the run is {t.status} and holds no scores.", False)]
    out = [_gain(t), *_size(t)]
    for name in t.collapsed():
        recall = t.scores.get(f"recall_{name}")
        out.append(Conclusion(f"Class '{name}' has collapsed: recall {shown(recall) if recall else 'unknown'}.", False))
    return [*out, *_pointers(t), *_calibration(t)]


def _gain(t: Tuned) -> Conclusion:
    over, best = t.least_sure(), t.against_best()
    if t.kind == "price_path":
        return Conclusion("This detector reads path features alone: it says nothing about the encoder.")
    if over is None or best is None:
        return Conclusion(f"{_phase(t)}: there is no network without pre-training to compare with.")
    network = f"{signed(over[1])} Joint@3 over the {title(over[0])}"
    rival = f"{signed(best[1])} over the best baseline ({title(best[0])})"
    if best[0] != PATH_FEATURES and PATH_FEATURES in t.differences:
        rival += f", {signed(t.differences[PATH_FEATURES]['joint_success_at_3'])} over {title(PATH_FEATURES)}"
    if t.claim() == "gain" and over[1].lo > 0:
        return Conclusion(f"{_phase(t)}: pre-training helps. {network}; {rival}. All intervals are clear of 0.", True)
    if best[1].hi < 0:
        return Conclusion(
            f"{_phase(t)}: the detector is worse than what needs no pre-training: {rival}; {network}.", False
        )
    if over[1].lo > 0:
        return Conclusion(
            f"{_phase(t)}: pre-training helps the network ({network}), but no gain is sure over what needs no "
            f"pre-training: {rival}.", None,
        )  # fmt: skip
    if over[1].hi < 0:
        return Conclusion(f"{_phase(t)}: pre-training harms the network: {network}; {rival}.", False)
    return Conclusion(f"{_phase(t)}: no gain. {network}: the interval covers 0; {rival}.")


def _size(t: Tuned) -> list[Conclusion]:
    """How small a difference could have been seen at all."""
    over = t.least_sure()
    if over is None or t.num_groups is None or not over[1].lo <= 0 <= over[1].hi:
        return []
    half = (over[1].hi - over[1].lo) / 2
    few = ", and intervals over so few are rough" if t.num_groups < FEW_UNITS else ""
    return [
        Conclusion(
            f"With {t.num_groups} independent groups of windows a difference under about {half:.2f} in Joint@3 cannot "
            f"be told from none{few}."
        )
    ]


def _pointers(t: Tuned) -> list[Conclusion]:
    hit, typical = t.scores.get("hit_at_3"), t.baselines.get("majority", {}).get("hit_at_3")
    if hit is None or typical is None:
        return []
    figures = f"within 3 bars {shown(hit)}, against {shown(typical)} for always naming the typical span"
    if hit.lo > typical.hi:
        return [Conclusion(f"The pointers find the expansion: {figures}.", True)]
    if hit.mean > typical.mean:
        return [Conclusion(f"The pointers do better than the typical span, but the intervals meet: {figures}.")]
    return [Conclusion(f"The pointers do no better than the typical span: {figures}.", False)]


def _calibration(t: Tuned) -> list[Conclusion]:
    gate = next((gate for gate in t.gates if gate.name == "ece"), None)
    if gate is None or gate.value is None:
        return []
    before = f", {t.ece_before:.3f} before temperature" if t.ece_before is not None else ""
    if t.ece_if_calibrated is not None:
        before += f"; a perfectly calibrated detector averages {t.ece_if_calibrated:.3f} on so many windows"
    if gate.passed:
        return [Conclusion(f"Its probabilities can be taken as such: ECE {gate.value:.3f}{before}.", True)]
    return [Conclusion(f"Its probabilities cannot be taken as such: ECE {gate.value:.3f}{before}, {gate.relation} "
                    f"{gate.limit:g} is asked.", False)]  # fmt: skip


def of_phases(difference: Interval | str | None) -> list[Conclusion]:
    """Return what unfreezing is worth: phase 2 minus phase 1 on the same folds, or why that is not known."""
    if difference is None:
        return []
    if isinstance(difference, str):
        return [Conclusion(f"Phase 2 cannot be set against phase 1 window by window: {difference}.")]
    text = f"Phase 2 minus phase 1, on the same folds: {signed(difference)} Joint@3"
    if difference.lo > 0:
        return [Conclusion(f"{text}: training the encoder on pays.", True)]
    if difference.hi < 0:
        return [Conclusion(f"{text}: training the encoder on harms.", False)]
    return [Conclusion(f"{text}: the interval covers 0, no gain from training the encoder on.")]


def next_steps(
    run_id: str, encoder: str, p: Pretrained, tunings: Sequence[Tuned], detectors: Sequence[str]
) -> list[Step]:
    """Return the commands that follow from what is there and what is not, the most pressing first.

    ``encoder`` is the URI of the encoder; ``detectors`` those of registered versions that meet their gates.
    """
    steps: list[Step] = []
    encoder = shlex.quote(encoder)  # a registered model may be called anything
    if not p.done:
        state = {"RUNNING": "it is still running; when it has ended", FINISHED: "its artifacts are lost"}
        return [Step(state.get(p.status, "go on where the training stopped"), again(run_id, p))]
    probe = p.gate("probe_r2_gain")
    if p.identity or (probe is not None and not probe.passed and p.objective != "price_path"):
        better = better_encoder_command("", None, p.bars)
        steps.append(Step("an objective whose encoder has something to say", better))
    elif probe is not None and not probe.passed and p.epochs_planned:
        more = better_encoder_command(p.objective, p.epochs_planned, p.bars)
        steps.append(Step("the probe's gate is missed: train longer, or on more bars", more))
    done = [tuned for tuned in tunings if tuned.done]
    for kind, preset in (("frozen", ""), ("unfrozen", " -P config=configs/phase2.yaml")):
        if not any(tuned.kind == kind for tuned in done):
            why = f"{FREEZE[kind]} is not there"
            steps.append(Step(why, f"mlflow run . -e finetune -P encoder={encoder}{preset}"))
    for uri in detectors:
        model, _, version = uri.removeprefix("models:/").rpartition("/")
        promote = f"mlflow run . -e promote -P model={shlex.quote(model)} -P version={version}"
        steps.append(Step("the detector meets its gates", promote))
    unsure = [t for t in done if (over := t.least_sure()) and over[1].lo <= 0 <= over[1].hi and t.kind != "price_path"]
    if unsure:
        repeated = f"mlflow run . -e finetune -P encoder={encoder} -P repeats=5"
        steps.append(
            Step(
                "no gain could be told from none: repeats steady the figures, more labels narrow the intervals",
                repeated,
            )
        )
    if any(tuned.weak for tuned in done):
        own = f"mlflow run . -e finetune -P encoder={encoder} -P labels=my_labels.parquet"
        steps.append(Step("the labels are a rule's: only labels by people say what the detector is worth", own))
    if p.sample:
        own = "mlflow run . -e pretrain -P config=configs/path.yaml -P bars=my_bars.parquet"
        steps.append(Step("the bars are synthetic: train on your own", own))
    if len(done) > 1:
        ids = ",".join(tuned.run_id for tuned in done[-4:])
        steps.append(Step("the fine-tunings side by side", f"mlflow run . -e compare -P run_ids={ids}"))
    return steps


def again(run_id: str, p: Pretrained) -> str:
    """Return the command that brings what an unfinished pre-training lacks."""
    if p.status == "RUNNING":
        return f"moola report --run_id {run_id}"
    if p.status == FINISHED:
        return "moola doctor"
    return (
        f"moola pretrain --resume {run_id}" if p.epochs_run else launcher_command("pretrain", bars_parameters(p.bars))
    )


def gate_text(gate: GateRow) -> str:
    """Return how a gate stands, with its margin."""
    if gate.margin is None:
        return "missed: no figure"
    by = f" by {abs(gate.margin):.4g}" if gate.margin else ""
    return f"{'met' if gate.passed else 'missed'}{by}"


def _phase(t: Tuned) -> str:
    text = FREEZE.get(t.kind, "fine-tuning")
    return text[:1].upper() + text[1:]
