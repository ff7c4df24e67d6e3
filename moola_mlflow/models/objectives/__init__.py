"""Pre-training objectives by name. A new objective is one file in this folder with ``build``; the file names it.

A name may also be a weighted sum of registered ones, such as ``price_path+0.5*masked``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from moola_mlflow.core import ObjectiveConfig, UserError, find_plugins, nearest_name
from moola_mlflow.models.objectives.base import Errors, Objective, leak
from moola_mlflow.models.objectives.masked import Masked
from moola_mlflow.models.objectives.price_path import PricePath
from moola_mlflow.models.objectives.weighted_sum import WeightedSum

__all__ = ["OBJECTIVES", "Errors", "Masked", "Objective", "PricePath", "WeightedSum", "build_objective", "leak"]


OBJECTIVES: dict[str, Callable[[ObjectiveConfig, tuple[str, ...], int], Objective]] = find_plugins(
    __name__, __path__, "build"
)
"""Constructors: (section ``objective``, names of the features, encoding size) -> objective."""


def build_objective(config: ObjectiveConfig, names: tuple[str, ...], encoding_size: int) -> Objective:
    """Return a freshly initialised objective for the named features.

    Raises: UserError for an unknown name or a sum that cannot be read.
    """
    weights = parse_name(config.name)
    built = {name: OBJECTIVES[name](config, names, encoding_size) for name in weights}
    if list(weights.values()) == [1.0]:
        return next(iter(built.values()))
    return WeightedSum({name: (weights[name], part) for name, part in built.items()})


def parse_name(text: str) -> dict[str, float]:
    """Return the weight of each objective in ``name`` or ``[weight*]name + ...``, in the order written.

    Raises: UserError for an unknown or repeated name, and for a weight that is not a number above 0.
    """
    weights: dict[str, float] = {}
    for term in text.split("+"):
        weight_text, star, name = term.rpartition("*")
        name = name.strip()
        if name not in OBJECTIVES:
            what = f"'{name}' is unknown{nearest_name(name, OBJECTIVES)}" if name else "a term has no name."
            raise UserError(
                f"objective.name='{text}': {what} Allowed: {', '.join(OBJECTIVES)}, or a sum such as "
                "price_path+0.5*masked"
            )
        weight = _number(weight_text) if star else 1.0
        if not 0 < weight < math.inf:
            raise UserError(
                f"objective.name='{text}': the weight of '{name}' is '{weight_text.strip()}'; allowed: a number above "
                f"0, as in price_path+0.5*masked; leave '{name}' out if it should not count"
            )
        if name in weights:
            raise UserError(
                f"objective.name='{text}': '{name}' is named twice, and both would be the same objective; give it "
                f"one weight, such as {weights[name] + weight:g}*{name}"
            )
        weights[name] = weight
    return weights


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
