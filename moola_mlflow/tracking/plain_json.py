"""JSON of the values that commands log: NumPy numbers and arrays, and figures that are not finite."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON text: null for NaN and infinity, plain numbers and lists for NumPy's."""
    return json.dumps(without_nan(value), indent=indent, default=_plain)


def without_nan(value: Any) -> Any:
    """Return the value with None for every NaN and infinity, which JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(part) for part in value]
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return None
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
