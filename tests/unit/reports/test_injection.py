"""No name puts an element on a page: each page is read as a browser reads it, with harmless and with hostile names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow as pa
import pytest
from event_files import some_events
from paths import ROOT
from run_records import record, scored
from small_evaluations import found, truth
from small_events import random_event_detector, sample
from small_evidence import LABELS, evidence
from small_models import small_detector
from small_studies import Bench, configured
from touched import figures_of

from moola_mlflow.bars.reader import Bars, SourceFile
from moola_mlflow.core import DetectKeys, EvaluateKeys, RulesKeys, make_config
from moola_mlflow.evaluation import collect_bars_evidence
from moola_mlflow.models import scan_events
from moola_mlflow.models.scanning import scan
from moola_mlflow.reports import LabelsReport, compare
from moola_mlflow.reports.detections import DetectionsReport
from moola_mlflow.reports.document import Document, Heading
from moola_mlflow.reports.evaluate_report import EvaluateReport
from moola_mlflow.reports.event_detections import EventDetectionsReport
from moola_mlflow.reports.page import TEMPLATES
from moola_mlflow.reports.plots.interactive import curves_chart
from moola_mlflow.reports.rules_report import RulesReport
from moola_mlflow.reports.run_report.build import build_report, find_report_subject
from moola_mlflow.reports.touchable import Plot, touch_page
from moola_mlflow.reports.wrong_windows import wrong_windows_page
from moola_mlflow.sweep.summary import StudyResults, importances, pareto_front, study_page
from moola_mlflow.windows import make_windows

HARMLESS = "plain"
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><img src=x onerror=alert(1)>",
    "</title></style></textarea><svg onload=alert(1)>",
    '" onload="alert(1)" x=\'',
    "'><img src=x>--><img src=x>]]><img src=x>",
    '<a href="javascript:alert(1)">x</a>',
    "[x](javascript:alert(1)) ![x](http://e/x.png) `<img src=x>`",
    "&lt;img src=x onerror=alert(1)&gt; | \n<b>x</b>",
    "{{ 7 * 7 }}<img src=x>",
)
EVERYTHING = {"detect.min_probability": 0.0, "detect.min_span_score": 0.0, "detect.margin": 0, "detect.top": 3}


def named_bars(name: str, num: int = 1500) -> Bars:
    """Bars of an instrument and a file with this name."""
    bars = sample(num)
    return replace(bars, symbols=dict.fromkeys(bars.symbols, name), files=(SourceFile(Path(name), "0" * 64, num),))


def detections(name: str) -> str:
    config = make_config(DetectKeys, {}, EVERYTHING)
    base = small_detector("price_path")
    detector = replace(base, classes=(name, f"{name}2"), card={**base.card, "labels": {"path": name, "weak": True}})
    return DetectionsReport.of(scan(named_bars(name), detector, config.detect), detector, name, config).html()


def event_detections(name: str) -> str:
    config = make_config(DetectKeys, {}, {"detect.min_score": 0.0, "detect.top": 3})
    labels = {"weak": True, "num": 9, "counts": {name: 4}, "rule": name, "path": name}
    detector = random_event_detector(num_classes=2, headline=name, labels=labels)
    detector = replace(detector, classes=(name, f"{name}2"))
    return EventDetectionsReport.of(scan_events(named_bars(name), detector, 0.0), detector, name, config).html()


def evaluation(name: str) -> str:
    rows = [(0, 100, 105, 0.9), (1, 300, 306, 0.8), (0, 500, 504, 0.7)]
    classes = (name, f"{name}2")
    events = replace(found(rows), classes=classes)
    by = replace(truth([(0, 101, 106, 1.0), (1, 2000, 2005, 1.0)]), classes=classes, source=name)
    labels = {"sha256": "same", "weak": True, "rule": name, "path": name}
    detector = replace(random_event_detector(num_classes=2, labels=labels), classes=classes)
    keys = make_config(EvaluateKeys, {}, {})
    return EvaluateReport(collect_bars_evidence(events, by, 300), detector, name, keys).html()


def labels(name: str) -> str:
    shown = replace(
        some_events(), classes=(name, f"{name}2"), window_id=np.array([f"{name}{i}" for i in range(10)]), path=name,
        instrument=np.array([name] * 10), drawn=np.array([name] * 10),
        extra=pa.table({column: [name] * 12 for column in ("annotator", "note", "grade", name + "column")}),
    )  # fmt: skip
    return LabelsReport(shown, 400).html()


def wrong_windows(name: str) -> str:
    given = replace(
        LABELS, window_id=np.array([f"{name}{i}" for i in range(len(LABELS))]), path=name,
        classes=tuple(f"{name}{i}" for i, _ in enumerate(LABELS.classes)),
    )  # fmt: skip
    return wrong_windows_page(replace(evidence(), labels=given))


def comparison(name: str) -> str:
    one = record("pretrain", {"moola.encoder": name, name: name}, {"val/huber": 0.5}, {"a": name, name: "1"})
    other = record("pretrain", {"moola.encoder": "b"}, {"val/huber": 0.4}, {"a": "2"}, run_id="b")
    one.run.info._run_name = name
    return compare.build_comparison([one, other]).html()


def comparison_of_tunings(name: str) -> str:
    changed = {"tags": {"moola.encoder": name, "moola.headline": name}, "params": {"preset": name}}
    runs = [scored([True, False] * 10, **changed), scored([False, True] * 10, run_id="b")]
    runs[0].run.info._run_name = name
    return compare.build_comparison(runs).html()


def report(name: str) -> str:
    client = mlflow.MlflowClient()
    experiment = client.create_experiment(f"of {name}")
    tags = {"moola.stage": "pretrain", "mlflow.source.git.commit": name, "moola.data_sha256": name,
            "mlflow.note.content": name, "moola.bars_warning": name}  # fmt: skip
    run = client.create_run(experiment, tags=tags, run_name=name).info.run_id
    client.log_metric(run, "val/huber", 0.5)
    text = f"bars: {{path: {json.dumps(name)}}}\nobjective: {{name: {json.dumps(name)}}}\n"
    client.log_text(run, text, "config.yaml")
    client.set_terminated(run)
    return build_report(find_report_subject(run)).html().replace(run, "0" * 32)


def rules(name: str) -> str:
    keys = make_config(RulesKeys, {}, {"objective.num_rules": 4})
    return RulesReport.of(make_windows(named_bars(name, 3000), 105), keys).html()


def curves(name: str) -> str:
    document = Document(f"Training: {name}")
    document.add(Heading("Curves"))
    history = [{"train/loss": 1.0, "val/loss": 2.0, "val/huber": 1.0, "val/skill": 0.1, "lr": 0.1}] * 2
    return touch_page(document, [Plot("Curves", curves_chart(history, 0), name)], [("3", name)])


def sweep(name: str) -> str:
    bench = Bench(configured(n_trials=3, study=name))
    queue, _ = bench.sweep()
    trials = queue.study.get_trials()
    counts, front = {name: 3}, pareto_front(trials, bench.config.sweep.direction)
    results = StudyResults(
        queue.study, bench.config, bench.space, trials, counts, queue.study.best_trial, front, importances(queue.study)
    )
    return study_page(results)


PAGES: dict[str, Callable[[str], str]] = {
    "detect, spans": detections,
    "detect, events": event_detections,
    "evaluate": evaluation,
    "labels": labels,
    "finetune": wrong_windows,
    "compare": comparison,
    "compare, fine-tunings": comparison_of_tunings,
    "report": report,
    "rules": rules,
    "pretrain": curves,
    "sweep": sweep,
}
OWN_MARKS = ("<br>", "<b>", "</b>", "<extra>", "</extra>", "<i>", "</i>")
"""What texts of plotly's charts may hold: plotly reads a few tags in them."""


class Elements(HTMLParser):
    """The elements of a page, each with the names of its attributes and the scheme of its address."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: Counter[tuple[str, tuple[str, ...], str]] = Counter()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        address = next((given[key] for key in ("href", "src", "action", "xlink:href") if key in given), "")
        self.found[tag, tuple(sorted(given)), "#" if address.startswith("#") else address.partition(":")[0]] += 1

    handle_startendtag = handle_starttag


def texts_of(value: Any) -> list[str]:
    """Every text in a figure."""
    if isinstance(value, dict):
        return [text for one in value.values() for text in texts_of(one)]
    if isinstance(value, list):
        return [text for one in value for text in texts_of(one)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("page", PAGES)
def test_no_name_puts_an_element_on_a_page(page: str, workdir: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{workdir}/mlflow.db")
    expected = Elements(PAGES[page](HARMLESS)).found
    assert len(expected) > 5
    for name in HOSTILE:
        text = PAGES[page](name)
        assert Elements(text).found == expected, name
        for shown in texts_of(figures_of(text)) if 'id="figures">' in text else []:
            for mark in OWN_MARKS:
                shown = shown.replace(mark, "")
            assert "<" not in shown, shown


def test_no_script_of_a_page_reads_text_as_html() -> None:
    scripts = [*(ROOT / "moola_mlflow" / "annotate" / "page").glob("*.js"), TEMPLATES / "touch.js"]
    assert len(scripts) > 10
    for script in scripts:
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|\beval\(|new Function",
            script.read_text(encoding="utf-8"),
        )
        assert found is None, f"{script.name}: {found}"
