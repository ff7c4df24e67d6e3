"""The commands as Python functions, for notebooks and scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.api.verbs import detect, evaluate, finetune, label, pretrain

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "verbs": ("detect", "evaluate", "finetune", "label", "pretrain"),
    },
)
