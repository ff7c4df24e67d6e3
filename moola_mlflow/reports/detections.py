"""What a scan leaves behind for people: its figures, its note, and a page with charts of the best hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moola_mlflow.core import Config, html_page, html_table, html_text, markdown_code, markdown_text, metric_name
from moola_mlflow.evaluation import Gate, detector_gates, gates_table, missed_gates
from moola_mlflow.models import PatternDetector, Scan
from moola_mlflow.reports.plots.candles import candles_svg, class_color
from moola_mlflow.tracking import Metrics

NO_NOTHING = (
    "The detector names one of its classes in every window, also where there is no pattern: it was taught on windows "
    "that hold one. Its probability says which class, given that there is one; whether there is one, only the "
    "thresholds ask."
)
HINDSIGHT = "A hit is hindsight: the window holds the bars after the span, and the class is read from them."
WEAK = (
    "The labels it learned from are WEAK: a rule made them from prices. A hit says that the rule's pattern is there, "
    "not that a market can be read."
)
STYLE = """
<style>
body { max-width: 78rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }
.hit { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .7rem .2rem; min-width: 0; }
.hit header { display: flex; flex-wrap: wrap; gap: .2rem .7rem; align-items: baseline; }
.hit .name { color: #fff; border-radius: 4px; padding: 0 .45rem; font-size: .88rem; overflow-wrap: anywhere; }
.hit .when { font-size: .82rem; opacity: .75; margin-left: auto; font-variant-numeric: tabular-nums; }
.hit .more { font-size: .8rem; opacity: .75; margin: .1rem 0 0; overflow-wrap: anywhere; }
.hit svg { display: block; width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; opacity: .7; }
svg .grid { stroke: currentColor; stroke-opacity: .13; } svg .tick { stroke: currentColor; stroke-opacity: .4; }
.notice { border-left: 4px solid #d9772b; background: var(--soft); padding: .5rem 1rem; margin: .8rem 0; }
.counts { display: flex; flex-wrap: wrap; gap: .6rem 2rem; margin: 1rem 0; }
.counts b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.counts span { font-size: .85rem; opacity: .75; }
</style>
"""


@dataclass(frozen=True)
class DetectionsReport:
    """A scan with the detector that made it."""

    scan: Scan
    table: pd.DataFrame
    detector: PatternDetector
    uri: str
    """The version that read the bars, or the folder."""
    config: Config
    warnings: tuple[str, ...] = ()

    @property
    def share_above(self) -> float:
        """Share of the windows whose hit passes the thresholds."""
        return float(self.scan.above.mean())

    def gates(self) -> list[Gate]:
        """Return the gates of the detector, from the evidence on its card."""
        return detector_gates(self.detector.card.get("evidence"), self.config.gates)

    def counts(self) -> dict[str, int]:
        """Return the number of hits of each class."""
        return {name: int((self.table["label"] == name).sum()) for name in self.detector.classes}

    def metrics(self, seconds: float) -> dict[str, float]:
        """Return the figures of the run."""
        num_windows, num_bars = len(self.scan.windows), len(self.scan.windows.bars)
        hits = {f"{Metrics.HITS}{metric_name(name)}": float(n) for name, n in self.counts().items()}
        return {
            Metrics.DETECT_HITS: len(self.table),
            **hits,
            Metrics.DETECT_WINDOWS: num_windows,
            Metrics.DETECT_WINDOWS_ABOVE: int(self.scan.above.sum()),
            Metrics.DETECT_SHARE_ABOVE: self.share_above,
            Metrics.DETECT_BARS: num_bars,
            Metrics.DETECT_BARS_SEEN: self.scan.num_bars_seen,
            Metrics.DETECT_SECONDS: seconds,
            Metrics.DETECT_WINDOWS_PER_SECOND: num_windows / seconds,
            Metrics.DETECT_BARS_PER_SECOND: num_bars / seconds,
        }

    def summary(self) -> str:
        """Return the result in one line."""
        counts = ", ".join(f"{n:,} {name}" for name, n in self.counts().items())
        return f"{len(self.table):,} hits ({counts}) in {len(self.scan.windows.bars):,} bars"

    def scanned(self) -> str:
        """Return what was read, and what passed."""
        scan, options = self.scan, self.config.detect
        left = len(scan.windows.bars) - scan.num_bars_seen
        short = f" {left:,} bars lie in segments shorter than a window and were not read." if left else ""
        return (
            f"{len(scan.windows):,} windows of {scan.windows.length} bars, one every {options.stride}; "
            f"{scan.above.sum():,} of them ({self.share_above:.0%}) hold a hit with a probability of at least "
            f"{options.min_probability:g}, a span score of at least {options.min_span_score:g} and {options.margin} "
            f"bars on either side. Of hits that share a bar the most probable one stays.{short}"
        )

    def cautions(self) -> list[str]:
        """Return what whoever reads the hits must know."""
        weak = [WEAK] if (self.detector.card.get("labels") or {}).get("weak") else []
        return [NO_NOTHING, *weak, HINDSIGHT, *self.warnings]

    def note(self, seconds: float) -> str:
        """Return the Markdown note of the run: the result first."""
        checked = self.gates()
        missed = missed_gates(checked)
        passed = "all gates met" if not missed else f"gates missed: {markdown_text('; '.join(missed))}"
        cautions = "\n".join(f"- {markdown_text(text)}" for text in self.cautions())
        return (
            f"**{markdown_text(self.summary())}.**\n\n{markdown_text(self.scanned())}\n\n{cautions}\n\n"
            f"Detector {markdown_code(self.uri)}: {markdown_text(self._headline())} ({passed}). Bars "
            f"{markdown_code(self.config.bars.path)}. {len(self.scan.windows) / seconds:,.0f} windows a second.\n\n"
            "Look at the artifacts `detections.html` (charts of the best) and `detections.parquet` (all).\n"
        )

    def html(self) -> str:
        """Return a page that needs nothing else: the detector and its evidence, charts of the best hits, a table."""
        best = self.best()
        counts = [
            (f"{len(self.table):,}", "hits"),
            *((f"{n:,}", name) for name, n in self.counts().items()),
            (f"{self.share_above:.0%}", f"of {len(self.scan.windows):,} windows above the thresholds"),
            (f"{len(self.scan.windows.bars):,}", "bars"),
        ]
        shown = "".join(f"<div><b>{html_text(n)}</b><span>{html_text(what)}</span></div>" for n, what in counts)
        charts = "\n".join(self._chart(rank, row, hit) for rank, (row, hit) in enumerate(best.iterrows(), 1))
        of_all = f"the {len(best):,} most probable of {len(self.table):,}" if len(best) < len(self.table) else "all"
        nothing = "<p>No hit passes the thresholds. Lower detect.min_probability or detect.min_span_score.</p>"
        return html_page(
            f"Detections: {self._source()}",
            "\n".join(
                [
                    STYLE,
                    f'<div class="counts">{shown}</div>',
                    *(f'<p class="notice">{html_text(text)}</p>' for text in self.cautions()),
                    f"<p>{html_text(self.scanned())}</p>",
                    "<h2>Detector</h2>",
                    html_table(["version", self.uri], self._origin()),
                    html_table(["gate", "value", "needed", "met"], _gate_rows(self.gates())).replace(
                        "<td>no</td>", '<td class="bad">no</td>'
                    ),
                    f"<h2>Charts: {of_all}</h2>" if len(best) else "<h2>Charts</h2>",
                    f'<div class="charts">\n{charts}\n</div>' if len(best) else nothing,
                    *self._table(best),
                ]
            ),
        )

    def best(self) -> pd.DataFrame:
        """Return the rows that the page shows, the most probable first."""
        order = ["probability", "span_score", "start"]
        sorted_rows = self.table.sort_values(order, ascending=[False, False, True], kind="stable")
        return sorted_rows.head(self.config.detect.top)

    def _source(self) -> str:
        names = sorted(set(self.scan.windows.bars.symbols.values()))
        listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        return f"{self.config.bars.path} ({listed})"

    def _headline(self) -> str:
        return str(self.detector.card.get("headline") or "its card holds no headline")

    def _origin(self) -> list[tuple[str, object]]:
        card, labels = self.detector.card, self.detector.card.get("labels") or {}
        kind = "weak (made by a rule)" if labels.get("weak") else "as given"
        counts = ", ".join(f"{n} {name}" for name, n in (labels.get("counts") or {}).items())
        times = f", {labels['labelled_from']} to {labels['labelled_until']}" if "labelled_from" in labels else ""
        encoders = ", ".join(str(encoder.get("uri")) for encoder in card.get("encoders") or []) or "none"
        rows: list[tuple[str, object]] = [
            ("model", card.get("model_id", "unknown")),
            ("evidence", self._headline()),
            ("labels", f"{labels.get('num', '?')} {kind}: {counts}{times}" if labels else "unknown"),
            ("encoder", encoders),
            ("temperature", f"{self.detector.temperature:.3f}"),
            ("bars", f"{self.config.bars.path}, content SHA-256 {self.scan.windows.bars.sha256}"),
        ]
        return rows

    def _chart(self, rank: int, row: Any, hit: pd.Series) -> str:
        windows, window = self.scan.windows, int(self.scan.kept[row])
        start = int(windows.starts[window])
        rows = slice(start, start + windows.length)
        span = (int(hit["expansion_start"]), int(hit["expansion_end"]))
        color = class_color(self.detector.classes, hit["label"])
        title = f"{hit['label']}, {hit['instrument']}, {_when(hit)}"
        svg = candles_svg(windows.bars.ohlc[rows], windows.bars.time_ns[rows], span, color, title)
        more = [f"{hit['instrument']}", f"{span[1] - span[0] + 1} bars"]
        if pd.notna(hit["span_score"]):
            more.append(f"span score {hit['span_score']:.2f}")
        more.append(f"{hit['num_windows']} window{'s' if hit['num_windows'] > 1 else ''}")
        return (
            f'<article class="hit" id="hit-{rank}"><header><span>{rank}</span>'
            f'<span class="name" style="background:{color}">{html_text(hit["label"])}</span>'
            f"<strong>{hit['probability']:.1%}</strong>"
            f'<span class="when">{_when(hit)}</span></header>'
            f'<p class="more">{html_text(" · ".join(more))}</p>{svg}</article>'
        )

    def _table(self, best: pd.DataFrame) -> list[str]:
        if not len(best):
            return []
        headers = ["", "instrument", "span (UTC)", "label", "probability", "span score", "windows", "window (UTC)"]
        rows = [
            (
                rank, hit["instrument"], _when(hit), hit["label"], f"{hit['probability']:.4f}",
                "" if pd.isna(hit["span_score"]) else f"{hit['span_score']:.3f}", hit["num_windows"],
                f"{hit['window_start']:%Y-%m-%d %H:%M} to {hit['window_end']:%H:%M}",
            )
            for rank, (_, hit) in enumerate(best.iterrows(), 1)
        ]  # fmt: skip
        return ["<h2>Table</h2>", html_table(headers, rows)]


def _gate_rows(checked: Sequence[Gate]) -> list[tuple[Any, ...]]:
    return [
        (row["gate"], "missing" if row["value"] is None else f"{row['value']:.4g}", row["needed"],
         "yes" if row["passed"] else "no")
        for row in gates_table(checked)
    ]  # fmt: skip


def _when(hit: pd.Series) -> str:
    return f"{hit['start']:%Y-%m-%d %H:%M} to {hit['end']:%H:%M}"
