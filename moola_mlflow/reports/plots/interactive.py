"""Charts that one can touch: zoom, hover, and step through windows. A page of them needs no network.

Shape legend: T bars of a window.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moola_mlflow.core import Metrics
from moola_mlflow.reports.plots.candles import DOWN, UP

if TYPE_CHECKING:
    from moola_mlflow.evaluation import Interval, ScoredEvents

PANELS = {
    "loss": (Metrics.TRAIN_LOSS, Metrics.VAL_LOSS, Metrics.VAL_LOSS_PROFILED),
    "Huber": (Metrics.VAL_HUBER,),
    "skill": (Metrics.VAL_SKILL,),
    "learning rate": (Metrics.LR,),
}
"""The panels of a training's curves, and the metrics in each."""
HALF_BAR = np.timedelta64(30, "s")
PRICES = "<br>open %{open}<br>high %{high}<br>low %{low}<br>close %{close}<extra></extra>"
HOVER, HOVER_BAR = "%{x|%Y-%m-%d %H:%M}" + PRICES, "bar %{x}" + PRICES
BINS = 8
MAX_POINTS = 2000
"""Points of a curve: more of them do not show on a screen."""


@dataclass(frozen=True)
class ShownSpan:
    """A shaded part of a window: its first and last bar, what it is, and its colour."""

    start: int
    end: int
    name: str
    color: str


@dataclass(frozen=True)
class WindowPicture:
    """One window of a chart. Shapes: ohlc [T, 4], times datetime64[ns] [T] on the clock of ``zone``.

    Where the time of a bar is not known, ``times`` are the numbers of the bars, int64, and ``zone`` is empty.
    """

    title: str
    ohlc: np.ndarray
    times: np.ndarray
    zone: str
    spans: tuple[ShownSpan, ...] = ()


def local_times(time_ns: np.ndarray, zone: str) -> np.ndarray:
    """Return times as a clock shows them. Shapes: int64 [T] -> datetime64[ns] [T].

    >>> str(local_times(np.array([1_704_207_600_000_000_000]), "America/New_York")[0])[:16]
    '2024-01-02T10:00'
    """
    utc = pd.DatetimeIndex(np.asarray(time_ns, np.int64).view("datetime64[ns]"), tz="UTC")
    return utc.tz_convert(zone).tz_localize(None).to_numpy("datetime64[ns]")


def curves_chart(history: Sequence[Mapping[str, float]], best_epoch: int) -> go.Figure:
    """Return losses, Huber, skill and learning rate by epoch, with a line at the best epoch.

    ``best_epoch`` counts from 0, the chart from 1.
    """
    figure = make_subplots(1, len(PANELS), subplot_titles=list(PANELS), horizontal_spacing=0.06)
    epochs = list(range(1, len(history) + 1))
    for column, names in enumerate(PANELS.values(), 1):
        for name in names:
            values = [row.get(name) for row in history]
            hover = "epoch %{x}<br>%{y:.6g}<extra>" + name + "</extra>"
            line = go.Scatter(x=epochs, y=values, name=name, mode="lines+markers", hovertemplate=hover)
            figure.add_trace(line, row=1, col=column)
    figure.add_vline(x=best_epoch + 1, line={"dash": "dot", "color": "grey"})
    figure.update_xaxes(title="epoch", tickformat="d")
    return _styled(figure, f"Training: the best epoch is {best_epoch + 1}", 420)


def scores_chart(scores: Mapping[str, Interval], title: str, axis: str) -> go.Figure:
    """Return one bar a row, with its interval; the first row is on top."""
    names = list(scores)[::-1]
    rows = [scores[name] for name in names]
    ends = {
        "array": [max(0.0, row.hi - row.mean) if np.isfinite(row.hi) else 0.0 for row in rows],
        "arrayminus": [max(0.0, row.mean - row.lo) if np.isfinite(row.lo) else 0.0 for row in rows],
    }
    bars = go.Bar(
        x=[row.mean for row in rows], y=names, orientation="h", error_x={"type": "data", "symmetric": False, **ends},
        customdata=[row.text() for row in rows], hovertemplate="%{y}<br>%{customdata}<extra></extra>",
    )  # fmt: skip
    figure = go.Figure(bars)
    figure.update_xaxes(title=axis)
    return _styled(figure, title, 180 + 34 * len(names))


def precision_recall_chart(methods: Mapping[str, ScoredEvents], threshold: float, which: str) -> go.Figure:
    """Return precision against recall as the threshold of the score falls; a dot marks the first method at its own."""
    figure = go.Figure()
    for i, (name, scored) in enumerate(methods.items()):
        precision, recall, score = (_thinned(values) for values in scored.curve())
        hover = "recall %{x:.3f}<br>precision %{y:.3f}<br>score %{customdata:.3f}<extra>" + name + "</extra>"
        figure.add_scatter(x=recall, y=precision, customdata=score, name=name, mode="lines", hovertemplate=hover)
        at = scored.scores(threshold)
        if i == 0 and np.isfinite(at["precision"]):
            figure.add_scatter(
                x=[at["recall"]], y=[at["precision"]], name=f"threshold {threshold:.2f}", mode="markers",
                marker={"size": 11, "color": "black"},
            )  # fmt: skip
    figure.update_xaxes(title="recall", range=[0, 1.02])
    figure.update_yaxes(title="precision", range=[0, 1.04])
    return _styled(figure, f"Precision and recall, {which}", 460)


def reliability_bins(scored: ScoredEvents) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean score, share of right events and number of each bin. Bins hold equally many events.

    Shapes: float64 [B], float64 [B], int64 [B].
    """
    judged = np.flatnonzero(scored.right >= 0)
    judged = judged[np.argsort(-scored.score[judged], kind="stable")]
    bins = [part for part in np.array_split(judged, BINS) if len(part)]
    score_B, right_B = (np.array([x[part].mean() for part in bins]) for x in (scored.score, scored.right))
    return score_B, right_B, np.array([len(part) for part in bins])


def reliability_chart(scored: ScoredEvents, which: str) -> go.Figure:
    """Return the share of right events against their score: one point for each bin of equal size."""
    score_B, right_B, num_B = reliability_bins(scored)
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], name="score = share of right events", mode="lines", hoverinfo="skip",
        line={"dash": "dot", "color": "grey"},
    )  # fmt: skip
    hover = "score %{x:.3f}<br>right %{y:.3f}<br>%{customdata} events<extra></extra>"
    figure.add_scatter(x=score_B, y=right_B, customdata=num_B, name="events", mode="lines+markers", hovertemplate=hover)
    figure.update_xaxes(title="calibrated score", range=[0, 1.02])
    figure.update_yaxes(title="share of right events", range=[0, 1.04])
    return _styled(figure, f"Reliability, {which}", 460)


def windows_chart(pictures: Sequence[WindowPicture]) -> go.Figure:
    """Return candlesticks of one window, and a slider that shows the others. Spans are shaded."""
    figure = go.Figure()
    if not pictures:
        figure.add_annotation(text="nothing to show", showarrow=False, font={"size": 18})
        return _styled(figure, "", 300)
    steps = [{"method": "update", "label": str(i + 1), "args": window_change(one)} for i, one in enumerate(pictures)]
    first = {name: values[0] for name, values in _prices(pictures[0]).items()}
    figure.add_trace(
        go.Candlestick(
            **first, showlegend=False,
            increasing={"line": {"color": UP}}, decreasing={"line": {"color": DOWN}},
        )
    )  # fmt: skip
    figure.update_xaxes(rangeslider={"visible": False})
    figure.update_yaxes(title="price")
    _styled(figure, "", 520)
    figure.update_layout(_around(pictures[0]), dragmode="zoom", hovermode="x")
    if len(pictures) > 1:
        figure.update_layout(sliders=[{"steps": steps, "currentvalue": {"prefix": "window "}, "pad": {"t": 50}}])
    return figure


def window_change(one: WindowPicture) -> list[dict[str, Any]]:
    """Return the changes of trace and layout that show a window in a chart, as plotly's ``update`` takes them."""
    return [_prices(one), _around(one)]


def _prices(one: WindowPicture) -> dict[str, list[Any]]:
    """Return the arguments that show the candlesticks of a window in the chart's one trace."""
    times = _axis(one.times)
    hover = HOVER if one.zone else HOVER_BAR
    columns = dict(zip(("open", "high", "low", "close"), one.ohlc.T.tolist(), strict=True))
    prices = {name: [[float(f"{price:.9g}") for price in values]] for name, values in columns.items()}
    return {"x": [times], **prices, "hovertemplate": [hover]}


def _axis(places: np.ndarray) -> list[Any]:
    """Return times or numbers of bars as plotly takes them."""
    found: list[Any] = (np.datetime_as_string(places, unit="s") if places.dtype.kind == "M" else places).tolist()
    return found


def _around(one: WindowPicture) -> dict[str, Any]:
    """Return the title and the shaded spans of a window."""
    shapes, notes = [], []
    for span in one.spans:
        half = HALF_BAR if one.zone else 0.5
        left, right = _axis(np.array([one.times[span.start] - half, one.times[span.end] + half]))
        shapes.append(
            {"type": "rect", "xref": "x", "yref": "paper", "x0": left, "x1": right, "y0": 0, "y1": 1,
             "fillcolor": span.color, "opacity": 0.22, "line": {"width": 0}, "layer": "below"}
        )  # fmt: skip
        # plotly reads some tags in texts.
        notes.append(
            {"x": left, "y": 1, "xref": "x", "yref": "paper", "text": html.escape(span.name), "showarrow": False,
             "xanchor": "left", "yanchor": "bottom", "font": {"color": span.color}}
        )  # fmt: skip
    return {
        "title.text": html.escape(one.title), "shapes": shapes, "annotations": notes,
        "xaxis.title.text": f"time, {one.zone}" if one.zone else "bar of the window",
        "xaxis.type": "date" if one.zone else "linear", "xaxis.autorange": True, "yaxis.autorange": True,
    }  # fmt: skip


def _thinned(values: np.ndarray) -> np.ndarray:
    """Return at most ``MAX_POINTS`` of the values, evenly spread, with both ends."""
    if len(values) <= MAX_POINTS:
        return values
    return values[np.linspace(0, len(values) - 1, MAX_POINTS).astype(int)]


def _styled(figure: go.Figure, title: str, height: int) -> go.Figure:
    margin = {"l": 60, "r": 20, "t": 60, "b": 50}
    return figure.update_layout(title=title, height=height, template="plotly_white", margin=margin)
