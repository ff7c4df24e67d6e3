"""Pre-training objectives by name. A new objective is one file with a subclass of Objective and one row here."""

from __future__ import annotations

from collections.abc import Callable

from moola_mlflow.config import ObjectiveConfig
from moola_mlflow.errors import UserError, nearest
from moola_mlflow.objectives.base import Errors, Objective, leak, skills
from moola_mlflow.objectives.masked import Masked
from moola_mlflow.objectives.path import PricePath

__all__ = ["OBJECTIVES", "Errors", "Masked", "Objective", "PricePath", "build_objective", "leak", "skills"]


def _masked(config: ObjectiveConfig, names: tuple[str, ...], encoding_size: int) -> Objective:
    assert config.mask_ratio is not None, "the configuration fills it in"
    return Masked(
        names,
        encoding_size,
        strategy=config.mask_strategy,
        ratio=config.mask_ratio,
        patch=config.mask_patch,
        hide=config.hide_masked,
        uncertainty=config.uncertainty,
        log_sigma_min=config.log_sigma_min,
        units=config.units,
        jitter_sigma=config.jitter_sigma,
    )


def _path(config: ObjectiveConfig, names: tuple[str, ...], encoding_size: int) -> Objective:
    return PricePath(encoding_size, config.jitter_sigma)


OBJECTIVES: dict[str, Callable[[ObjectiveConfig, tuple[str, ...], int], Objective]] = {"masked": _masked, "path": _path}


def build_objective(config: ObjectiveConfig, names: tuple[str, ...], encoding_size: int) -> Objective:
    """Return a freshly initialised objective for the named features.

    Raises: UserError for an unknown name.
    """
    if config.name not in OBJECTIVES:
        raise UserError(
            f"objective.name='{config.name}' is unknown{nearest(config.name, OBJECTIVES)} "
            f"Allowed: {', '.join(OBJECTIVES)}"
        )
    return OBJECTIVES[config.name](config, names, encoding_size)
