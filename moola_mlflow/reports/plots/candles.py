"""Draw detections: candlesticks as SVG for a page, and one overview of a scan."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from moola_mlflow.reports.plots.figure import blank_figure

CLASS_COLORS = ("#3f6fd8", "#d9772b", "#8a56c2", "#2f9e8f", "#c0417f", "#8d7a25")
UP, DOWN = "#2a9d76", "#d1495b"
WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 8, 58, 10, 24
MAX_POINTS = 4000
"""Points of the overview's price line, about as many as it has pixels."""


def class_color(classes: Sequence[str], label: str) -> str:
    """Return the colour of a class. It is the same in every picture of one detector."""
    return CLASS_COLORS[list(classes).index(label) % len(CLASS_COLORS)]


@dataclass(frozen=True)
class Span:
    """A shaded part of a chart: its first and last step, and its colour."""

    start: int
    end: int
    color: str


def candles_svg(ohlc_T4: np.ndarray, time_ns_T: np.ndarray, span: tuple[int, int], color: str, title: str) -> str:
    """Return one window as candlesticks in SVG, its span shaded. ``title`` is text.

    Shapes: ohlc [T, 4], times int64 [T], span: first and last step. Units: pixels of a box of 560 x 250 that scales.
    """
    return spans_svg(ohlc_T4, [clock(time_ns) for time_ns in time_ns_T.tolist()], [Span(*span, color)], title)


def spans_svg(ohlc_T4: np.ndarray, ticks_T: Sequence[str], spans: Sequence[Span], title: str) -> str:
    """Return one window as candlesticks in SVG, with any number of shaded spans. Ticks and title are text.

    Shapes: ohlc [T, 4], T ticks. The first and the last are written, and that at the start of each span if it fits.
    Units: pixels of a box of 560 x 250 that scales.
    """
    num = len(ohlc_T4)
    low, high = float(ohlc_T4[:, 2].min()), float(ohlc_T4[:, 1].max())
    margin = 0.04 * (high - low) or max(abs(high) * 1e-4, 1e-9)
    low, high = low - margin, high + margin
    step = (WIDTH - LEFT - RIGHT) / num
    bottom = HEIGHT - BOTTOM

    def x(t: float) -> float:
        return LEFT + (t + 0.5) * step

    def y(price: float) -> float:
        return TOP + (high - price) / (high - low) * (bottom - TOP)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        *(
            f'<rect x="{x(span.start - 0.5):.1f}" y="{TOP}" width="{(span.end - span.start + 1) * step:.1f}" '
            f'height="{bottom - TOP}" fill="{span.color}" fill-opacity=".2"/>'
            for span in spans
        ),
    ]
    for price in price_ticks(low, high):
        parts.append(f'<path class="grid" d="M{LEFT} {y(price):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 5}" y="{y(price) + 4:.1f}">{price_text(price, high - low)}</text>')
    last = -80.0
    for t, anchor in ((0, "start"), *((span.start, "middle") for span in spans), (num - 1, "end")):
        if t in (0, num - 1) or (80 < x(t) < WIDTH - RIGHT - 80 and x(t) >= last + 40):
            parts.append(f'<path class="tick" d="M{x(t):.1f} {bottom}v4"/>')
            parts.append(
                f'<text x="{x(t):.1f}" y="{HEIGHT - 7}" text-anchor="{anchor}">{html.escape(ticks_T[t])}</text>'
            )
            last = x(t)
    half = max(0.32 * step, 0.6)
    for rises, paint in ((True, UP), (False, DOWN)):
        mine = np.flatnonzero((ohlc_T4[:, 3] >= ohlc_T4[:, 0]) == rises)
        path = ""
        for t in mine.tolist():
            o, h, l, c = ohlc_T4[t]  # noqa: E741
            top, low_body = y(max(o, c)), y(min(o, c))
            path += f"M{x(t):.1f} {y(h):.1f}V{y(l):.1f}"
            path += f"M{x(t) - half:.1f} {top:.1f}h{2 * half:.1f}V{max(low_body, top + 0.8):.1f}h{-2 * half:.1f}z"
        if path:
            parts.append(f'<path d="{path}" fill="{paint}" stroke="{paint}" stroke-width=".8"/>')
    return "".join([*parts, "</svg>"])


def price_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round prices between two, at most ``most``, in steps of 1, 2, 2.5 or 5 times a power of ten."""
    wanted = (high - low) / most
    power = 10.0 ** np.floor(np.log10(wanted))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= wanted)
    return [float(k * step) for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def price_text(price: float, spread: float) -> str:
    """Return a price with enough decimals to tell the ticks of a chart apart."""
    decimals = int(np.clip(2 - np.floor(np.log10(spread)), 0, 9)) if spread > 0 else 2
    text = f"{price:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def clock(time_ns: int) -> str:
    """Return the UTC time of day."""
    return str(np.datetime64(int(time_ns), "ns").astype("datetime64[m]"))[11:16]


def overview_figure(
    close_N: np.ndarray,
    time_ns_N: np.ndarray,
    first_H: np.ndarray,
    last_H: np.ndarray,
    label_H: Sequence[str],
    confidence_W: np.ndarray,
    threshold: float,
    classes: Sequence[str],
) -> Figure:
    """Return the prices with every hit marked, and a histogram of the probability of the class in each window.

    Shapes: close and times [N bars], first and last row of each hit [H], confidence [W windows].
    """
    figure = blank_figure(12, 6.4)
    price_ax, share_ax = figure.subplots(2, 1, height_ratios=[3, 1.4])
    every = max(1, len(close_N) // MAX_POINTS)
    rows = np.arange(0, len(close_N), every)
    price_ax.plot(rows, close_N[rows], color="0.55", linewidth=0.7)
    labels = np.asarray(label_H, dtype=object)
    for name in classes:
        middle = ((first_H + last_H) // 2)[labels == name]
        color = class_color(classes, name)
        # matplotlib reads text between dollar signs as a formula.
        legend = f"{name.replace('$', chr(92) + '$')} ({len(middle):,})"
        price_ax.plot(middle, close_N[middle], "o", markersize=4, color=color, alpha=0.8, label=legend)
    marks = np.linspace(0, len(close_N) - 1, 7).astype(int)
    price_ax.set_xticks(marks, [str(np.datetime64(int(time_ns_N[t]), "ns").astype("datetime64[D]")) for t in marks])
    price_ax.set(xlabel="bar number", ylabel="close", title=f"{len(first_H):,} hits in {len(close_N):,} bars")
    price_ax.legend(loc="best")
    price_ax.margins(x=0.01)
    share_ax.hist(confidence_W, bins=np.linspace(0, 1, 51).tolist(), color="#4878a8")
    share_ax.axvline(threshold, color="#c03028", linestyle="--", linewidth=1.2, label=f"threshold {threshold:g}")
    share_ax.set(xlabel="calibrated probability of the predicted class, all windows", ylabel="windows", xlim=(0, 1))
    share_ax.legend(loc="upper left")
    for ax in (price_ax, share_ax):
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
    return figure
