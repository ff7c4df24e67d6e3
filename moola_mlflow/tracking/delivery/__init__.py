"""A run's events on their way to the store: journal on disk, outbox, replay.

Other modules use :class:`Delivery` (five methods) and the functions that read a run's folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.tracking.delivery.catch_up import describe_lines, send_missing
    from moola_mlflow.tracking.delivery.delivery import (
        NO_LIMIT,
        Delivery,
        DeliveryState,
        DirectDelivery,
        JournalDelivery,
        SendPolicy,
    )
    from moola_mlflow.tracking.delivery.files import copy_into
    from moola_mlflow.tracking.delivery.journal import (
        JOURNAL_FILE,
        append_status,
        damaged_lines,
        lacks_status,
        logged_steps,
        read_history,
    )
    from moola_mlflow.tracking.delivery.remake import is_forgotten, remake_run
    from moola_mlflow.tracking.delivery.replay import MAX_NOTE
    from moola_mlflow.tracking.delivery.schema import is_time
    from moola_mlflow.tracking.delivery.sent import (
        SENT_FILE,
        Sent,
        count_unsent,
        held_events,
        id_in_store,
        unsent_events,
    )

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "catch_up": ("describe_lines", "send_missing"),
        "delivery": ("Delivery", "DeliveryState", "DirectDelivery", "JournalDelivery", "NO_LIMIT", "SendPolicy"),
        "files": ("copy_into",),
        "journal": ("JOURNAL_FILE", "append_status", "damaged_lines", "lacks_status", "logged_steps", "read_history"),
        "remake": ("is_forgotten", "remake_run"),
        "replay": ("MAX_NOTE",),
        "schema": ("is_time",),
        "sent": ("SENT_FILE", "Sent", "count_unsent", "held_events", "id_in_store", "unsent_events"),
    },
)
