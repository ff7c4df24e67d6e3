"""Section ``features``: what is computed from the bars of a window."""

from __future__ import annotations

from pydantic import Field

from moola_mlflow.core.config.base import Section


class FeaturesConfig(Section):
    """Which features are computed, and by which rule of the zigzag."""

    set: str = "relativity11"
    """relativityN: the first N features of the table, at least 10; +NAME adds those of features/NAME.py."""
    hybrid_lookback: int = Field(0, ge=0)
    """Bars after a leg's extreme within which the hybrid rule may end the leg; 0: the primary rule alone."""
    hybrid_min_retrace: float = Field(0.5, gt=0)
    """Retracement, in ATR, that the hybrid rule asks for."""
    hybrid_same_bar: bool = False
    """Whether the bar that made the extreme may also confirm it; true is the published variant."""
