"""The search space: dotted keys of the configuration as Optuna distributions, some only under a condition."""

from __future__ import annotations

import itertools
import json
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import Trial

from moola_mlflow.core import Dimension, SweepKeys, UserError, current_name, dotted_keys, make_config, nearest_name
from moola_mlflow.tracking import Metrics

NOT_SEARCHABLE = ("sweep", "tracking", "registry", "runtime", "gates")
"""Sections that change nothing about what is trained."""
HUBER_SCALE = ("bars.", "features.", "windows.", "split.", "objective.")
"""Keys that define the targets and windows of the validation Huber: its values do not compare across them."""
FEW_SHOT_SCALE = ("bars.", "windows.", "split.", "objective.name", "objective.family")
"""Keys that define the windows and the fresh rules of the few-shot loss."""
MAX_POINTS = 2000
"""Most points of a space whose points are counted, so that none is tried twice."""
Params = dict[str, Any]
"""Values by dotted keys."""


@dataclass(frozen=True)
class Space:
    """The searched keys in the order of drawing: each comes after the keys that its condition names."""

    distributions: dict[str, BaseDistribution]
    conditions: dict[str, dict[str, list[Any]]]
    """Conditions of some keys: other keys and the values that they must have."""
    fixed: Params
    """Values of keys that conditions name but that are not searched."""

    @classmethod
    def of(cls, config: SweepKeys) -> Space:
        """Return the search space of a configuration. Raises: UserError that names key, value and what to do."""
        sweep, flat = config.sweep, config.flat()
        if not sweep.space:
            raise UserError("sweep.space is empty: name at least one key to search, as configs/sweep.yaml does")
        for key in sweep.space:
            _check_key(key, config)
        conditions = {
            key: {
                other: list(value) if isinstance(value, list | tuple) else [value] for other, value in one.when.items()
            }
            for key, one in sweep.space.items()
            if one.when
        }
        for key, needs in conditions.items():
            for other in needs:
                if other not in flat:
                    raise UserError(f"sweep.space, {key}: when names '{other}'{nearest_name(other, flat)}")
        order = _ordered(list(sweep.space), conditions)
        fixed = {other: flat[other] for needs in conditions.values() for other in needs if other not in sweep.space}
        fields = dotted_keys(type(config))
        drawn = {key: _distribution(key, sweep.space[key], fields[key].annotation) for key in order}
        space = cls(drawn, conditions, fixed)
        space._check_ends(config)
        for point in sweep.enqueue:
            space.check_point(point)
        return space

    def active(self, key: str, params: Params) -> bool:
        """Return whether a key is searched, given the values of the keys before it."""
        known = {**self.fixed, **params}
        return all(
            other in known and _current(known[other]) in map(_current, allowed)
            for other, allowed in self.conditions.get(key, {}).items()
        )

    def suggest(self, trial: Trial) -> Params:
        """Draw the values of a trial, key by key."""
        params: Params = {}
        for key, distribution in self.distributions.items():
            if not self.active(key, params):
                continue
            match distribution:
                case FloatDistribution(low=low, high=high, log=log, step=step):
                    params[key] = trial.suggest_float(key, low, high, log=log, step=step)
                case IntDistribution(low=low, high=high, log=log, step=step):
                    params[key] = trial.suggest_int(key, low, high, log=log, step=step)
                case CategoricalDistribution(choices=choices):
                    params[key] = trial.suggest_categorical(key, choices)
        return params

    def grid(self) -> list[Params]:
        """Return every combination of values. Raises: UserError if a key has no list of values."""
        values = {key: list(_values(key, one)) for key, one in self.distributions.items()}
        points: list[Params] = []
        for combination in itertools.product(*values.values()):
            point: Params = {}
            for key, value in zip(values, combination, strict=True):
                if self.active(key, point):
                    point[key] = value
            if point not in points:
                points.append(point)
        return points

    def points(self, most: int = MAX_POINTS) -> list[Params] | None:
        """Return every combination of values; None if there are more than ``most``, or infinitely many."""
        try:
            sizes = [len(list(_values(key, one))) for key, one in self.distributions.items() if _is_small(one, most)]
        except UserError:
            return None
        if len(sizes) < len(self.distributions) or math.prod(sizes) > most:
            return None
        return self.grid()

    def widens(self, other: Space) -> bool:
        """Return whether this space holds all of another one, and differs from it only by wider ranges of numbers."""
        same = list(self.distributions) == list(other.distributions)
        if not same or (self.conditions, self.fixed) != (other.conditions, other.fixed):
            return False
        return all(_widens(one, other.distributions[key]) for key, one in self.distributions.items())

    def check_point(self, point: Params) -> None:
        """Refuse a point that is outside the space. Raises: UserError."""
        for key, value in point.items():
            if key not in self.distributions:
                raise UserError(f"sweep.enqueue: '{key}' is not searched{nearest_name(key, self.distributions)}")
            try:
                inside = self.distributions[key]._contains(self.distributions[key].to_internal_repr(value))
            except (ValueError, TypeError):
                inside = False
            if not inside:
                raise UserError(f"sweep.enqueue: {key}={value!r} is outside {self.distributions[key]}")

    def read(self, text: Mapping[str, str]) -> Params:
        """Return a trial's values from its run's parameters, in the order of the space. Raises: UserError."""
        params: Params = {}
        for key, distribution in self.distributions.items():
            if key not in text:
                continue
            if isinstance(distribution, CategoricalDistribution):
                named = {str(choice): choice for choice in distribution.choices}
                if text[key] not in named:
                    raise UserError(
                        f"'{text[key]}' is no choice of {key} ({distribution}); the run was changed by hand"
                    )
                params[key] = named[text[key]]
            else:
                params[key] = int(text[key]) if isinstance(distribution, IntDistribution) else float(text[key])
        return params

    def to_json(self) -> str:
        """Return the space as JSON text."""
        parts = {key: json.loads(distribution_to_json(one)) for key, one in self.distributions.items()}
        return json.dumps({"distributions": parts, "conditions": self.conditions, "fixed": self.fixed})

    @classmethod
    def from_json(cls, text: str) -> Space:
        """Return the space that a text of ``to_json`` describes."""
        tree = json.loads(text)
        parts = {key: json_to_distribution(json.dumps(one)) for key, one in tree["distributions"].items()}
        return cls(parts, tree["conditions"], tree["fixed"])

    def _check_ends(self, config: SweepKeys) -> None:
        """Refuse a range if the configuration refuses one of its ends. Raises: UserError."""
        for key, distribution in self.distributions.items():
            needed = {other: allowed[0] for other, allowed in self.conditions.get(key, {}).items()}
            ends = (
                distribution.choices
                if isinstance(distribution, CategoricalDistribution)
                else [distribution.low, distribution.high]  # type: ignore[attr-defined]
            )
            for value in ends:
                try:
                    trial_config(config, {**needed, key: value})
                except UserError as e:
                    raise UserError(f"sweep.space, {key} at {value}: {e}") from None


def _is_small(one: BaseDistribution, most: int) -> bool:
    if isinstance(one, CategoricalDistribution):
        return True
    step = getattr(one, "step", None)
    return bool(step) and not getattr(one, "log", False) and (one.high - one.low) / step < most  # type: ignore[attr-defined]


def _widens(now: BaseDistribution, then: BaseDistribution) -> bool:
    if now == then:
        return True
    if type(now) is not type(then) or isinstance(now, CategoricalDistribution):
        return False
    assert isinstance(now, IntDistribution | FloatDistribution)
    assert isinstance(then, IntDistribution | FloatDistribution)
    if (now.log, now.step) != (then.log, then.step) or now.low > then.low or now.high < then.high:
        return False
    shift = (then.low - now.low) / now.step if now.step and not now.log else 0.0
    return math.isclose(shift, round(shift), abs_tol=1e-9)  # a value of before must be a value now


def _current(value: object) -> object:
    return current_name(value) if isinstance(value, str) else value


def trial_config(config: SweepKeys, params: Params) -> SweepKeys:
    """Return the configuration that a trial trains. Raises: UserError if its values contradict each other."""
    text = {key: "none" if value is None else value for key, value in params.items()}
    return make_config(type(config), config.model_dump(mode="json"), text)


def _check_key(key: str, config: SweepKeys) -> None:
    keys = [name for name in dotted_keys(type(config)) if name.split(".")[0] not in NOT_SEARCHABLE]
    if key not in keys:
        raise UserError(
            f"sweep.space: '{key}' cannot be searched{nearest_name(key, keys)} "
            f"Every key: moola {config.sweep.stage} --help"
        )
    scale = {Metrics.VAL_HUBER: HUBER_SCALE, Metrics.FEW_SHOT: FEW_SHOT_SCALE}.get(config.sweep.target, ())
    if key.startswith(scale):
        raise UserError(
            f"sweep.space: '{key}' changes what {config.sweep.target} is measured on, so its values do not compare; "
            "set sweep.objective=probe/r2_gain, or do not search it"
        )
    if key == "trainer.epochs" and config.sweep.budget != "epochs":
        raise UserError(
            f"sweep.space: trainer.epochs follows from sweep.budget={config.sweep.budget}; do not search it"
        )


def _ordered(keys: list[str], conditions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the keys, each after those that its condition names. Raises: UserError for a circle."""
    order: list[str] = []
    while len(order) < len(keys):
        ready = [k for k in keys if k not in order and all(o in order or o not in keys for o in conditions.get(k, {}))]
        if not ready:
            stuck = ", ".join(key for key in keys if key not in order)
            raise UserError(f"sweep.space: the conditions of {stuck} name each other in a circle; remove one of them")
        order.append(ready[0])
    return order


def _distribution(key: str, one: Dimension, annotation: Any) -> BaseDistribution:
    if one.choices is not None:
        return CategoricalDistribution(one.choices)
    kinds = set(_types(annotation))
    if not kinds & {int, float}:
        raise UserError(f"sweep.space: {key} is no number; give choices instead of low and high")
    assert one.low is not None
    assert one.high is not None
    if float in kinds:
        return FloatDistribution(one.low, one.high, log=one.log, step=one.step)
    ends = [one.low, one.high, one.step or 1]
    if any(value != int(value) for value in ends):
        raise UserError(f"sweep.space: {key} is a whole number; low, high and step must be too (given {ends})")
    return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))


def _types(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) or (annotation,)


def _values(key: str, distribution: BaseDistribution) -> Iterator[Any]:
    match distribution:
        case CategoricalDistribution(choices=choices):
            yield from choices
        case IntDistribution(low=low, high=high, step=step, log=False):
            yield from range(low, high + 1, step)
        case FloatDistribution(low=low, high=high, step=float(step)):
            yield from (float(value) for value in np.linspace(low, high, round((high - low) / step) + 1))
        case _:
            raise UserError(f"sweep.sampler=grid: {key} needs choices, or low, high and step without log")
