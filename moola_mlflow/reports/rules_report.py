"""Describe labelling rules: how often each finds something on given bars, and an example window of each selector."""

from __future__ import annotations

import csv
import inspect
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from moola_mlflow.core import RulesKeys, markdown_code, markdown_text
from moola_mlflow.labels import OUTCOMES, RULES, SELECTORS, DrawnRule, Marked, Rule, apply_rules, draw_rules
from moola_mlflow.reports.document import Document, Heading, Notice, Para, Table
from moola_mlflow.reports.plots.candles import class_color
from moola_mlflow.reports.plots.interactive import ShownSpan, WindowPicture, windows_chart
from moola_mlflow.reports.touchable import Plot, touch_page
from moola_mlflow.reports.window_pictures import picture_of
from moola_mlflow.tracking import Metrics
from moola_mlflow.windows import Windows

MOST_WINDOWS = 3000
"""Windows that the rules read, evenly spaced over the bars: what the command costs is then bounded."""
WEAK = "A rule knows nothing but its formula. What it finds is weak supervision: nobody has looked at the labels."
COLUMNS = ("rule", "selector", "outcome", "found", "classes", "definition")


@dataclass(frozen=True)
class RulesReport:
    """Rules and what they say of windows, in the order of the rules."""

    rules: tuple[Rule, ...]
    marks: tuple[Marked, ...]
    windows: Windows
    config: RulesKeys

    @classmethod
    def of(cls, windows: Windows, config: RulesKeys) -> RulesReport:
        """Apply the rules with files of their own and the drawn ones. Raises: UserError or TrainingError."""
        num = min(len(windows), MOST_WINDOWS)
        some = windows.select(np.linspace(0, len(windows) - 1, num).astype(np.int64))
        ohlc, drawn = some.gather(np.arange(num)), config.objective
        rules = (*RULES.values(), *draw_rules(ohlc, drawn.num_rules, drawn.family, drawn.rules_seed))
        # Numbered by their times, as for `label`: a rule with noise says the same of a window in any file.
        return cls(rules, tuple(apply_rules(rules, ohlc, some.start_ns)), some, config)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each rule, with ``COLUMNS``; ``found`` is the share of the windows."""
        return [
            {
                "rule": rule.name,
                "selector": _selector(rule),
                "outcome": _outcome(rule),
                "found": float(mark.found.mean()),
                "classes": _shares(rule, mark),
                "definition": rule.describe(),
            }
            for rule, mark in zip(self.rules, self.marks, strict=True)
        ]

    def metrics(self) -> dict[str, float]:
        """Return the figures of the run."""
        drawn = [row["found"] for row in self.rows if row["selector"]]
        return {
            Metrics.RULES_DRAWN: len(drawn),
            Metrics.RULES_FOUND: float(np.mean(drawn)),
            Metrics.RULES_WINDOWS: len(self.windows),
        }

    def csv(self) -> str:
        """Return one line for each rule."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in self.rows:
            writer.writerow([f"{row[name]:.4f}" if name == "found" else row[name] for name in COLUMNS])
        return file.getvalue()

    def summary(self) -> str:
        """Return the result in one line."""
        objective, figures = self.config.objective, self.metrics()
        return (
            f"{objective.num_rules} rules of family {objective.family}, seed {objective.rules_seed}, find a span in "
            f"{figures[Metrics.RULES_FOUND]:.0%} of {len(self.windows):,} windows on average"
        )

    def selectors(self) -> list[tuple[str, ...]]:
        """Return a row for each selector: its name, the drawn rules with it, how often they find one, what it is."""
        return [(name, *self._used("selector", name), _first_sentence(kind)) for name, kind in SELECTORS.items()]

    def outcomes(self) -> list[tuple[str, ...]]:
        """Return a row for each outcome, as of selectors, with its classes."""
        return [
            (name, *self._used("outcome", name), ", ".join(kind.classes), _first_sentence(kind))
            for name, kind in OUTCOMES.items()
        ]

    def _used(self, column: str, name: str) -> tuple[str, str]:
        found = [row["found"] for row in self.rows if row[column] == name]
        return str(len(found)), f"{np.mean(found):.0%}" if found else ""

    def note(self) -> str:
        """Return the Markdown note of the run."""
        return (
            f"**{markdown_text(self.summary())}.**\n\n{WEAK}\n\nBars {markdown_code(self.config.bars.path)}. Open the "
            "artifacts `rules.html` (an example window of each selector) and `rules.csv` (every rule).\n"
        )

    def pictures(self) -> dict[str, WindowPicture]:
        """Return an example window of each selector with a drawn rule, and of each rule with a file of its own.

        A rule that labels no window has none.
        """
        first: dict[str, int] = {}
        for i, row in enumerate(self.rows):
            first.setdefault(row["selector"] or row["rule"], i)
        named = [name for name in (*SELECTORS, *RULES) if name in first]
        found = {name: self._picture(name, first[name]) for name in named}
        return {name: picture for name, picture in found.items() if picture is not None}

    def _picture(self, name: str, i: int) -> WindowPicture | None:
        """Return the middle one of the windows that a rule labels."""
        rule, mark = self.rules[i], self.marks[i]
        labelled = np.flatnonzero(mark.labelled)
        if not len(labelled):
            return None
        at = int(labelled[len(labelled) // 2])
        outcome = rule.classes[int(mark.outcome[at])]
        span = ShownSpan(int(mark.start[at]), int(mark.end[at]), outcome, class_color(rule.classes, outcome))
        way = "up" if mark.direction[at] > 0 else "down"
        title = f"{name}: rule {rule.name}, in {mark.found.mean():.0%} of windows; here {way}, class {outcome}"
        return picture_of(self.windows.bars, int(self.windows.starts[at]), self.windows.length, title, [span])

    def html(self) -> str:
        """Return a page that needs no other file: an example of each selector, tables of all kinds and all rules."""
        title = "An example window of each selector"
        document = Document(f"Labelling rules on {self.config.bars.path}")
        document.add(Notice(WEAK, "warn"), Para(f"{self.summary()}."), Heading(title))
        document.add(Heading("Selectors"), Table(["selector", "rules", "found", "what it is"], self.selectors()))
        headers = ["outcome", "rules", "found", "classes", "what it is"]
        document.add(Heading("Outcomes"), Table(headers, self.outcomes()))
        rows = [
            (row["rule"], row["selector"], row["outcome"], f"{row['found']:.0%}", row["classes"]) for row in self.rows
        ]
        document.add(Heading("Rules"), Table(["rule", "selector", "outcome", "found", "shares of classes"], rows))
        counts = [(f"{len(self.rules):,}", "rules"), (f"{len(self.windows):,}", "windows")]
        examples = list(self.pictures().values())
        return touch_page(document, [Plot(title, windows_chart(examples))] if examples else [], counts)


def _kind(rule: Rule) -> type:
    return type(rule.selector) if isinstance(rule, DrawnRule) else type(rule)


def _selector(rule: Rule) -> str:
    return next((name for name, kind in SELECTORS.items() if kind is _kind(rule)), "")


def _outcome(rule: Rule) -> str:
    kind = type(rule.outcome) if isinstance(rule, DrawnRule) else None
    return next((name for name, one in OUTCOMES.items() if one is kind), "")


def _shares(rule: Rule, mark: Marked) -> str:
    """Return the share of each class among the windows with one."""
    counts = np.bincount(mark.outcome[mark.labelled], minlength=len(rule.classes))
    shares: Sequence[float] = (counts / max(1, counts.sum())).tolist()
    return ", ".join(f"{name} {share:.0%}" for name, share in zip(rule.classes, shares, strict=True))


def _first_sentence(kind: type) -> str:
    """Return the first paragraph of a class's docstring, as plain text."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].replace("`", "").split())
