"""The detector as MLflow serves it: raw OHLC windows or a table of bars in, hits out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from moola_mlflow.bars import bars_from_table
from moola_mlflow.core import DetectKeys, make_config
from moola_mlflow.models import (
    EventDetector,
    detect_options,
    find_events,
    learned_minutes,
    load_any_detector_folder,
    scan,
)
from moola_mlflow.serving.refusal import as_numbers, bad_request

TIMES = ("start", "end", "window_start", "window_end")
EVENT_TIMES = ("start", "end", "known_at")

BAR_PARAMETERS = ("timezone", "instrument")
"""Parameters of a request that say how its table is read."""


class ServedDetector(PythonModel):
    """Predict on windows or on a table of bars.

    Windows float64 [N, T, 4] -> N rows: label, p_<class> for each class, expansion_start, expansion_end.
    An event detector adds p_none, and its label may be ``none``, with null for both ends.
    A table of bars -> one row for each hit or event that ``moola detect`` finds, with times as ISO 8601. The parameters
    are the thresholds and the stride. ``timezone`` says what times without an offset mean, and ``instrument`` which
    of several is scanned: a name, ``front`` or ``all``.
    """

    def load_context(self, context: PythonModelContext) -> None:
        self.detector = load_any_detector_folder(Path(context.artifacts["detector"]))

    # np.ndarray is the one type hint that MLflow neither turns into a schema nor asks to replace. Tables and columns by
    # name arrive here too.
    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        given: Any = model_input
        with bad_request():
            if isinstance(given, dict):
                given = _columns(given)
            return self._hits(given, params or {}) if isinstance(given, pd.DataFrame) else self._windows(given)

    def _windows(self, ohlc: Any) -> pd.DataFrame:
        windows = as_numbers(ohlc, self.detector.length)
        if isinstance(self.detector, EventDetector):
            return _event_windows(self.detector, windows)
        found = self.detector.predict(windows)
        columns = {f"p_{name}": found.probability[:, i] for i, name in enumerate(self.detector.classes)}
        return pd.DataFrame(
            {"label": found.label, **columns, "expansion_start": found.start, "expansion_end": found.end}
        )

    def _hits(self, table: pd.DataFrame, params: dict[str, Any]) -> pd.DataFrame:
        read = {f"bars.{key}": params[key] for key in BAR_PARAMETERS if key in params}
        params = {key: value for key, value in params.items() if key not in BAR_PARAMETERS}
        read["bars.minutes"] = learned_minutes(self.detector.card)
        config = make_config(DetectKeys, {}, read).bars
        bars = bars_from_table(table, self.detector.length, config=config)
        if isinstance(self.detector, EventDetector):
            events = find_events(bars, self.detector, detect_options(params), config.max_gap_minutes).table()
            return _with_texts(events, EVENT_TIMES)
        hits = scan(bars, self.detector, detect_options(params), config.max_gap_minutes).table()
        # A head without a span score gives NaN, which JSON does not have.
        score = hits["span_score"].astype(object).where(hits["span_score"].notna(), None)
        return _with_texts(hits, TIMES).assign(span_score=score)


def _event_windows(detector: EventDetector, ohlc: np.ndarray) -> pd.DataFrame:
    found = detector.predict(ohlc)
    columns = {f"p_{name}": found.probability[:, i] for i, name in enumerate([*detector.classes, "none"])}
    ends = {
        name: pd.Series(steps, dtype=object).where(steps >= 0, None)
        for name, steps in (("expansion_start", found.start), ("expansion_end", found.end))
    }
    return pd.DataFrame({"label": found.label, **columns, **ends})


def _with_texts(table: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Return a table whose times are ISO 8601 texts."""
    return table.assign(**{name: table[name].dt.strftime("%Y-%m-%dT%H:%M:%SZ").astype(object) for name in names})


def _columns(given: dict[str, Any]) -> pd.DataFrame:
    """Return columns by name as a table. A single value is repeated in every row."""
    return pd.DataFrame({key: value if np.ndim(value) else np.asarray(value).item() for key, value in given.items()})


mlflow.models.set_model(ServedDetector())
