"""Models from code: the files that MLflow runs to rebuild a served model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    pass

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {},
)
