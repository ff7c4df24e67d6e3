"""Draw conclusions from figures by fixed rules. Every sentence holds the figures that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moola_mlflow.evaluation import FEW_GROUPS, OTHER_INPUT_TITLES, PATH_FEATURES, TITLES, Interval
from moola_mlflow.reports.finetune_results import TEMPERATURE_HARMS
from moola_mlflow.reports.run_report.facts import FINISHED, GateRow, Pretrained, Tuned

IDENTITY = (
    "Identity objective: the encoder saw the steps that it had to reconstruct. Its loss, MAE and skill measure "
    "copying, not understanding."
)


@dataclass(frozen=True)
class Conclusion:
    """One sentence of the report's conclusions."""

    text: str
    good: bool | None = None
    """Whether it is good news. None: neither good nor bad."""


def signed(i: Interval) -> str:
    """Return a difference with its interval."""
    return f"{i.mean:+.3f} [{i.lo:+.3f}, {i.hi:+.3f}]"


def shown(i: Interval) -> str:
    """Return a score with its interval."""
    return f"{i.mean:.3f} [{i.lo:.3f}, {i.hi:.3f}]"


def title(method: str, kind: str = "") -> str:
    """Return a method's name in words. ``kind`` is the kind of the detector that it is compared with."""
    titles = {**TITLES, **OTHER_INPUT_TITLES} if kind == "price_path" else TITLES
    return titles.get(method, method)


def main_conclusion(tunings: Sequence[Tuned]) -> Conclusion:
    """Return in one sentence whether the pre-training helped: the headline of its newest finished fine-tuning."""
    done = [tuned for tuned in tunings if tuned.done]
    if not done:
        return Conclusion(
            "It is not known whether this pre-training helps: no fine-tuning of its encoder has finished."
        )
    last = done[-1]
    return Conclusion(last.headline, {"gain": True, "loss": False}.get(last.claim() or ""))


def of_pretraining(p: Pretrained) -> list[Conclusion]:
    """Return what a pre-training shows without any fine-tuning."""
    if not p.done:
        planned = f" of {p.epochs_planned}" if p.epochs_planned else ""
        return [Conclusion(f"There are no results: the run is {p.status} after {p.epochs_run}{planned} epochs.", False)]
    out = []
    if p.status != FINISHED:
        out.append(Conclusion(f"The run has results, but its status is {p.status}: read its note.", False))
    if p.identity:
        levels = ", ".join(f"{name.replace('_', ' ')} {level}" for name, level in p.levels().items())
        out.append(Conclusion(f"{IDENTITY} Published thresholds: {levels or 'no figures'}.", False))
    else:
        out += _skill(p)
    out += _probe(p)
    if (
        p.best_epoch is not None
        and p.epochs_run > 1
        and p.best_epoch == p.epochs_run - 1 == (p.epochs_planned or 0) - 1
    ):
        out.append(
            Conclusion(f"The last of {p.epochs_run} epochs was the best: the score was still improving at the end.")
        )
    return out


def _skill(p: Pretrained) -> list[Conclusion]:
    if p.test_skill is None or p.test_huber is None or not p.baselines:
        return []
    best = min(p.baselines, key=lambda name: p.baselines[name])
    figures = f"Huber {p.test_huber:.4f}, best baseline {p.baselines[best]:.4f} ({best}), skill {p.test_skill:.3f}"
    gate = p.gate("skill")
    if p.test_skill <= 0:
        return [Conclusion(f"On the test bars it predicts no better than a baseline: {figures}.", False)]
    if gate is not None and p.test_skill <= gate.limit:
        text = f"On the test bars it beats every baseline, but its skill is not above {gate.limit:g}: {figures}."
        return [Conclusion(text, False)]
    return [Conclusion(f"On the test bars it predicts better than every baseline: {figures}.", True)]


def _probe(p: Pretrained) -> list[Conclusion]:
    gain, r2, inputs = p.probe.get("r2_gain"), p.probe.get("r2"), p.probe.get("r2_inputs")
    if gain is None or r2 is None:
        return []
    gate = p.gate("probe_r2_gain")
    figures = f"R2 {r2:.3f}, gain {gain:+.3f}"
    needed = f" (the gate asks for more than {gate.limit:g})" if gate is not None else ""
    good = gate is not None and gate.passed
    more = "more" if good else "hardly more" if gain > 0 else "no more"
    text = f"The probe reads {more} from the encoder than from the same network at random: {figures}{needed}."
    if inputs is not None and r2 <= inputs:
        text, good = f"{text} The raw inputs give as much or more (R2 {inputs:.3f}).", False
    return [Conclusion(text, good)]


def of_tuning(t: Tuned) -> list[Conclusion]:
    """Return what a fine-tuning shows, the gain first."""
    if not t.done:
        return [Conclusion(f"The run is {t.status} and holds no scores.", False)]
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
        return Conclusion("There is no network without pre-training to compare with.")
    network = f"{signed(over[1])} against the {title(over[0])}"
    rival = f"{signed(best[1])} against the best baseline ({title(best[0])})"
    if best[0] != PATH_FEATURES and PATH_FEATURES in t.differences:
        rival += f"; {signed(t.differences[PATH_FEATURES]['joint_success_at_3'])} against {title(PATH_FEATURES)}"
    if t.claim() == "gain" and over[1].lo > 0:
        return Conclusion(f"Pre-training helps: Joint@3 {network}; {rival}. No interval contains 0.", True)
    if best[1].hi < 0:
        return Conclusion(
            f"The detector is worse than a method without pre-training: Joint@3 {rival}; {network}.", False
        )
    if over[1].lo > 0:
        return Conclusion(
            f"Pre-training helps the network: Joint@3 {network}. No gain is sure over the methods that need no "
            f"pre-training: {rival}."
        )
    if over[1].hi < 0:
        return Conclusion(f"Pre-training harms the network: Joint@3 {network}; {rival}.", False)
    return Conclusion(f"No gain: Joint@3 {network}, an interval that contains 0; {rival}.")


def _size(t: Tuned) -> list[Conclusion]:
    """Return how small a difference these labels could not have shown, if they showed none."""
    over = t.least_sure()
    if over is None or t.num_groups is None or not over[1].lo <= 0 <= over[1].hi:
        return []
    half = (over[1].hi - over[1].lo) / 2
    few = " Intervals over so few groups are rough." if t.num_groups < FEW_GROUPS else ""
    return [
        Conclusion(
            f"These labels have {t.num_groups} independent groups of windows. They cannot show a difference in Joint@3 "
            f"under about {half:.2f}.{few}"
        )
    ]


def _pointers(t: Tuned) -> list[Conclusion]:
    hit, typical = t.scores.get("hit_at_3"), t.baselines.get("majority", {}).get("hit_at_3")
    if hit is None or typical is None:
        return []
    figures = f"{shown(hit)} of the centres are within 3 bars, and {shown(typical)} if the typical span is always named"
    if hit.lo > typical.hi:
        return [Conclusion(f"The pointers find the expansion: {figures}.", True)]
    if hit.mean > typical.mean:
        return [Conclusion(f"The pointers do better than the typical span, but the intervals overlap: {figures}.")]
    return [Conclusion(f"The pointers do no better than the typical span: {figures}.", False)]


def _calibration(t: Tuned) -> list[Conclusion]:
    gate = next((gate for gate in t.gates if gate.name == "ece"), None)
    if gate is None or gate.value is None:
        return []
    figures = f"ECE {gate.value:.3f}"
    if t.ece_before is not None:
        figures += f", {t.ece_before:.3f} before temperature"
        figures += TEMPERATURE_HARMS if gate.value > t.ece_before else ""
    perfect = ""
    if t.ece_if_calibrated is not None:
        perfect = f" A perfectly calibrated detector averages {t.ece_if_calibrated:.3f} on so many windows."
    if gate.passed:
        return [Conclusion(f"Its probabilities are calibrated: {figures}.{perfect}", True)]
    text = (
        f"Its probabilities are not calibrated: {figures}; the gate asks for {gate.relation} {gate.limit:g}.{perfect}"
    )
    return [Conclusion(text, False)]


def of_phases(difference: Interval | str | None) -> list[Conclusion]:
    """Return what unfreezing is worth: phase 2 minus phase 1 on the same folds, or why that is not known."""
    if difference is None:
        return []
    if isinstance(difference, str):
        return [Conclusion(f"Phase 2 cannot be compared with phase 1 window by window: {difference}.")]
    text = f"Phase 2 minus phase 1, on the same folds: {signed(difference)} Joint@3"
    if difference.lo > 0:
        return [Conclusion(f"{text}. Unfreezing the encoder helps.", True)]
    if difference.hi < 0:
        return [Conclusion(f"{text}. Unfreezing the encoder harms.", False)]
    return [Conclusion(f"{text}. The interval contains 0: unfreezing the encoder gives no sure gain.")]


def gate_text(gate: GateRow) -> str:
    """Return whether a gate is met, and by how much."""
    if gate.margin is None:
        return "missed: no value"
    by = f" by {abs(gate.margin):.4g}" if gate.margin else ""
    return f"{'met' if gate.passed else 'missed'}{by}"
