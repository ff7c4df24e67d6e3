"""Label windows by eye: the queue, the journal of decisions, and the server of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.annotate.app import build_app
    from moola_mlflow.annotate.server import PageServer
    from moola_mlflow.annotate.session import AnnotateSession
    from moola_mlflow.annotate.summary import annotate_metrics, annotate_note

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "app": ("build_app",),
        "server": ("PageServer",),
        "session": ("AnnotateSession",),
        "summary": ("annotate_metrics", "annotate_note"),
    },
)
