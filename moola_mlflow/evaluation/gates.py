"""Gates: what the evidence on a model's card must show before the model may be promoted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moola_mlflow.core import DetectorLimits, EncoderLimits, GateLimits, UserError, markdown_text
from moola_mlflow.features import check_quality

RELATIONS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    ">": (lambda value, limit: value > limit, "<="),
    ">=": (lambda value, limit: value >= limit, "<"),
    "<": (lambda value, limit: value < limit, ">="),
    "=": (lambda value, limit: value == limit, "!="),
}
"""How a value must compare with its limit: the test, and the sign to show if it fails."""

COPIES_INPUT = "an encoder was shown the steps it had to reconstruct (objective.hide_masked=false): it learned to copy"
GAIN = "delta_joint_success_at_3_lo"
IS_BASELINE = "it is itself the network without pre-training that others are compared with"
NO_GAIN = "no sure gain over the same network from scratch or with a random encoder"
OVER_OTHER_INPUTS = "over the networks without pre-training, which read an encoding instead of path features"
"""What a detector on path features alone is compared with: no network without pre-training reads the same inputs."""

EVENT = "event"
"""Kind of the evidence of an event detector."""
PRECISION_ABOUT = "too many of the events at or above its threshold are wrong"
ECE_OF_WINDOWS = "a limit that includes the error of a perfectly calibrated detector on as many windows"
ECE_ABOUT = "whose limit counts from what a perfectly calibrated detector has with as many events"
NO_MAP_GAIN = "no sure gain in mAP over the best baseline, path features included"

LEVELS = {"val_loss": (-5.0, -4.0), "val_mae": (0.002, 0.005)}
"""Levels of the published system: up to the first is EXCELLENT, up to the second GOOD."""


@dataclass(frozen=True)
class Gate:
    """One condition and the figure that must meet it."""

    name: str
    value: float
    """NaN if the card has no such figure, or one that is not finite."""
    limit: float
    relation: str
    """How the value must compare with the limit: one of ``RELATIONS``."""
    why: str = ""
    """What is wrong if the gate is missed; the figure alone does not say it."""
    about: str = ""
    """What the figure is, if its name does not say it."""
    left_out: str = ""
    """Why the figure was not measured, if it was left out on purpose."""

    @property
    def passed(self) -> bool:
        """Whether the condition holds; a missing figure fails."""
        return RELATIONS[self.relation][0](self.value, self.limit)  # no comparison holds for NaN

    def text(self) -> str:
        """Return ``name value relation limit``. A missed gate adds by how much, or says that its figure is missing."""
        needed = f"{self.relation} {_shown(self.limit)}"
        if math.isnan(self.value) and self.left_out:
            return f"{self.name} was not measured ({self.left_out}), needed {needed}"
        if math.isnan(self.value):
            return f"{self.name} is missing or not finite, needed {needed}"
        if self.passed:
            met = f"{self.name} {_shown(self.value)} {needed}"
            return f"{met}, {self.about}" if self.about else met
        relation, by = RELATIONS[self.relation][1], abs(self.value - self.limit)
        shown = f"{self.name} {_shown(self.value)} {relation} {_shown(self.limit)} (by {_shown(by)})"
        return f"{shown}: {self.why}" if self.why else shown


def encoder_gates(card: Mapping[str, Any], config: EncoderLimits) -> list[Gate]:
    """Return the gates of an encoder, from its card. A part of the wrong type counts as missing.

    Only an objective that hides steps has a leak to check. For the objective ``rules`` the gain on fresh rules over the
    same network with random weights replaces probe and skill.
    """
    copies, leak = copies_input(card), card.get("leak")
    gates = [Gate("identity", math.nan if copies is None else float(copies), 0.0, "=", COPIES_INPUT)]
    if not copies and ("masked" in _terms(card) or leak is not None):
        gates.append(Gate("leak", _number(leak), 0.0, "=", "hidden steps reach the encoder"))
    if _terms(card) == ["rules"]:
        gain = _number(_mapping(card.get("few_shot")).get("gain"))
        return [*gates, Gate("few_shot_gain", gain, config.few_shot_gain, ">"), _feature_gate(card.get("quality"))]
    return [
        *gates,
        Gate("probe_r2_gain", _number(_mapping(card.get("probe")).get("r2_gain")), config.probe_r2_gain, ">"),
        Gate("skill", _number(card.get("val_skill")), config.skill, ">"),
        _feature_gate(card.get("quality")),
    ]


def detector_gates(evidence: Any, config: DetectorLimits) -> list[Gate]:
    """Return the gates of a detector, from the evidence on its card. A part of the wrong type counts as missing."""
    evidence = _mapping(evidence)
    if evidence.get("kind") == EVENT:
        return _event_gates(evidence, config)
    identity, gain = evidence.get("identity_encoder"), _mapping(evidence.get("delta_joint_success_at_3"))
    is_baseline = gain.get("mean") == gain.get("lo") == gain.get("hi") == 0.0
    about = OVER_OTHER_INPUTS if evidence.get("delta_same_inputs") is False else ""
    why = IS_BASELINE if is_baseline else f"no sure gain {about}" if about else NO_GAIN
    if compared := _compared(evidence, "the least sure gain"):
        about, why = (f"{text}, {compared}" if text else compared for text in (about, why))
    by_class = _mapping(evidence.get("recall")) or {"every class": None}
    # Sampling noise and true miscalibration add as squares: the limit holds for the latter, whatever the windows.
    chance = _number(evidence.get("ece_if_calibrated"))
    limit, known = (config.ece, "") if math.isnan(chance) else (math.hypot(config.ece, chance), ECE_OF_WINDOWS)
    return [
        Gate("f1_macro", _number(evidence.get("f1_macro")), config.f1_macro, ">="),
        Gate("joint_success_at_3", _number(evidence.get("joint_success_at_3")), config.joint_success_at_3, ">="),
        *(
            Gate(f"recall/{label}", _number(value), config.recall, ">=", "the class collapsed")
            for label, value in by_class.items()
        ),
        Gate("ece", _number(evidence.get("ece")), limit, "<", about=known),
        _gain_gate(GAIN, evidence, gain, config.delta_joint_success_at_3, (why, about)),
        Gate("identity", float(identity) if isinstance(identity, bool) else math.nan, 0.0, "=", COPIES_INPUT),
    ]


def _event_gates(evidence: Mapping[str, Any], config: DetectorLimits) -> list[Gate]:
    """Return the gates of an event detector. The calibration error of few events is large by chance alone.

    So its limit is counted from the error of a perfectly calibrated detector with as many events. Where no event scores
    high enough to count, neither error is known: the first is missing, and fails its gate. A card without a gain has
    no gate on it if its detector reads path features alone: earlier versions compared such a detector with nothing.
    """
    chance, gain = _number(evidence.get("event_ece_if_calibrated")), _mapping(evidence.get("delta_map"))
    chance = 0.0 if math.isnan(chance) else chance
    by_class = _mapping(evidence.get("recall")) or {"every class": None}
    gates = [
        Gate("map", _number(evidence.get("map")), config.map, ">="),
        Gate("precision", _number(evidence.get("precision")), config.precision, ">=", PRECISION_ABOUT),
        *(
            Gate(f"recall/{label}", _number(value), config.event_recall, ">=", "the class collapsed")
            for label, value in by_class.items()
        ),
        Gate("event_ece", _number(evidence.get("event_ece")), config.event_ece + chance, "<", about=ECE_ABOUT),
    ]
    if evidence.get("pretrained") is not False or gain:
        about = _compared(evidence, "the best")
        why = f"{NO_MAP_GAIN}, {about}" if about else NO_MAP_GAIN
        gates.append(_gain_gate("delta_map_lo", evidence, gain, config.delta_map, (why, about)))
    return gates


def _gain_gate(
    name: str, evidence: Mapping[str, Any], gain: Mapping[str, Any], limit: float, words: tuple[str, str]
) -> Gate:
    """Return the gate on a gain over baselines. It is missed if a quick comparison left out some of them."""
    names = _names(evidence.get("left_out"))
    if not names:
        return Gate(name, _number(gain.get("lo")), limit, ">", *words)
    return Gate(name, math.nan, limit, ">", left_out=f"cv.baselines=quick left out {', '.join(names)}")


def _compared(evidence: Mapping[str, Any], which: str) -> str:
    """Name the baseline of the gain and all that were compared; nothing if the card does not say."""
    against, names = evidence.get("delta_against"), _names(evidence.get("delta_compared"))
    return f"against {against}, {which} of {', '.join(names)}" if names and isinstance(against, str) else ""


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list | tuple) else []


def copies_input(card: Mapping[str, Any]) -> bool | None:
    """Return whether an encoder was trained to copy what it could see; None if its card does not say."""
    terms = _terms(card)
    if "masked" not in terms:
        return False if terms else None
    hides = _mapping(card["objective"]).get("hide_masked")
    return not hides if isinstance(hides, bool) else None


def _terms(card: Mapping[str, Any]) -> list[str]:
    """Return the objectives that ``price_path+0.5*masked`` and the like name; none if the card does not say."""
    name = _mapping(card.get("objective")).get("name")
    return [term.rpartition("*")[2].strip() for term in name.split("+")] if isinstance(name, str) and name else []


def _feature_gate(report: Any) -> Gate:
    """Return the gate on the training windows' features: finite, within bounds, not all zero."""
    try:
        if not report["features"] or not all(_whole(row) for row in report["features"]):
            return Gate("feature_faults", math.nan, 0.0, "=")
        check_quality(report)
    except UserError as e:
        faults = str(e).removeprefix("feature quality: ").splitlines()
        return Gate("feature_faults", float(len(faults)), 0.0, "=", "; ".join(faults))
    except (KeyError, TypeError, OverflowError):  # no report, or one of another shape
        return Gate("feature_faults", math.nan, 0.0, "=")
    return Gate("feature_faults", 0.0, 0.0, "=")


def _whole(row: Mapping[str, Any]) -> bool:
    """Return whether a feature's figures are numbers. No comparison with NaN holds, so NaN would pass a bound.

    Bounds may be infinite. Raises: KeyError, TypeError or OverflowError if a figure is missing or no number.
    """
    values = [row["min"], row["max"]] if row["min"] is not None else []
    bounds = [row["lower"], row["upper"]] if values else []
    numbers = [_number(figure) for figure in (row["nan"], row["nonzero"], *values)]
    return not any(math.isnan(number) for number in (*numbers, *bounds))


def all_gates_passed(gates: Sequence[Gate]) -> bool:
    """Return whether every gate is passed."""
    return all(gate.passed for gate in gates)


def missed_gates(gates: Sequence[Gate]) -> list[str]:
    """Return the text of each missed gate: its figure, its limit, and by how much."""
    return [gate.text() for gate in gates if not gate.passed]


def gate_reasons(gates: Sequence[Gate]) -> list[str]:
    """Return the text of each passed gate whose name does not say what its figure is."""
    return [gate.text() for gate in gates if gate.passed and gate.about]


def gates_summary(gates: Sequence[Gate]) -> str:
    """Return ``passed``, or ``failed:`` with every missed gate."""
    return "passed" if all_gates_passed(gates) else f"failed: {'; '.join(missed_gates(gates))}"


def lowered_limits(config: GateLimits) -> list[str]:
    """Return the limits that are laxer than the shipped ones, each with the shipped limit."""
    usual, out = GateLimits(), []
    for name in GateLimits.model_fields:
        now, then = getattr(config, name), getattr(usual, name)
        if isinstance(then, float) and (now > then if name in ("ece", "event_ece") else now < then):
            out.append(f"{name} {_shown(now)} instead of {_shown(then)}")
    return out


def gates_table(gates: Sequence[Gate]) -> list[dict[str, Any]]:
    """Return one row for each gate, in plain JSON types."""
    return [
        {
            "gate": gate.name,
            "value": None if math.isnan(gate.value) else gate.value,
            "needed": f"{gate.relation} {_shown(gate.limit)}",
            "passed": gate.passed,
            **({"about": gate.about} if gate.about else {}),
        }
        for gate in gates
    ]


def gates_markdown(gates: Sequence[Gate]) -> str:
    """Return the table of gates as Markdown."""
    rows = [
        f"| {markdown_text(f'{gate.name}, {gate.about}' if gate.about else gate.name)} "
        f"| {'missing' if math.isnan(gate.value) else _shown(gate.value)} "
        f"| {gate.relation} {_shown(gate.limit)} | {'yes' if gate.passed else '**no**'} |"
        for gate in gates
    ]
    return "\n".join(["| gate | value | needed | passed |", "|---|---|---|---|", *rows])


def published_levels(val_loss: float, val_mae: float) -> dict[str, str]:
    """Return the published levels of an identity objective's scores: EXCELLENT, GOOD or WARNING."""
    return {name: _level(value, *LEVELS[name]) for name, value in (("val_loss", val_loss), ("val_mae", val_mae))}


def _level(value: float, excellent: float, good: float) -> str:
    return "EXCELLENT" if value <= excellent else "GOOD" if value <= good else "WARNING"


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for anything else that a card may hold."""
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:  # whole numbers in JSON may be larger than any float
        return math.nan


def _shown(x: float) -> str:
    """Return a limit as the configuration writes it (0.40), a count as a count, a measured figure in four digits."""
    if not math.isfinite(x):
        return f"{x:g}"
    return f"{x:.0f}" if x == round(x) else f"{x:.2f}" if math.isclose(round(x, 2), x, rel_tol=1e-12) else f"{x:.4g}"
