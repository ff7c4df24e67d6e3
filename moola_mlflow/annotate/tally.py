"""Counts of a session that the page shows, kept up to date with each decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from moola_mlflow.annotate.decisions import Decision
from moola_mlflow.labels import NONE


@dataclass
class SessionTally:
    """What one annotator has done so far. A decision that replaces another takes the other's place."""

    classes: Sequence[str]
    looked_at: int = 0
    """Windows that have a label, those without an event too."""
    kept: int = 0
    skipped: int = 0
    seconds: float = 0.0
    by_class: Counter[str] = field(default_factory=Counter)
    queried: Counter[str] = field(default_factory=Counter)
    """Windows with a label by how they were drawn, and kept ones as ``NAME kept``."""

    def replace(self, old: Decision | None, new: Decision) -> None:
        """Count a decision. Time that was spent on the one that it replaces stays counted."""
        if old is not None:
            self._count(old, -1)
        self._count(new, 1)
        self.seconds += new.seconds

    def _count(self, one: Decision, sign: int) -> None:
        if one.action in ("skip", "pass"):
            self.skipped += sign
            return
        self.looked_at += sign
        self.kept += sign * one.is_kept
        for event in one.events:
            self.by_class[event.label] += sign
        self.by_class[NONE] += sign * (not one.events)
        self.queried[one.drawn] += sign
        self.queried[f"{one.drawn} kept"] += sign * one.is_kept

    @property
    def decided(self) -> int:
        """Windows with a decision, skipped ones too."""
        return self.looked_at + self.skipped

    def keeper_rate(self, drawn: str = "") -> float | None:
        """Return the share of windows with a label that hold an event, of all or of one way to draw them."""
        seen, kept = (self.queried[drawn], self.queried[f"{drawn} kept"]) if drawn else (self.looked_at, self.kept)
        return kept / seen if seen else None

    def as_json(self) -> dict[str, Any]:
        names = [*self.classes, *sorted(set(self.by_class) - {*self.classes, NONE}), NONE]
        return {
            "looked_at": self.looked_at,
            "kept": self.kept,
            "skipped": self.skipped,
            "keeper_rate": self.keeper_rate(),
            "by_class": {name: self.by_class[name] for name in names},
            "minutes": round(self.seconds / 60, 2),
            "seconds_per_window": round(self.seconds / self.decided, 2) if self.decided else None,
        }
