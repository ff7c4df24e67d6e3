"""labels: what labelled windows hold, as a table and as charts; and the same windows in another form."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from rich.table import Table

from moola_mlflow.bars import Bars
from moola_mlflow.cli.bar_steps import load_bars
from moola_mlflow.cli.progress import table_console
from moola_mlflow.core import Interrupts, LabelsKeys, UserError, check_outputs, is_true, note_outputs
from moola_mlflow.labels import WRITTEN, write_any_labels
from moola_mlflow.reports import CLASS_HEADERS, LabelsReport, output_folder
from moola_mlflow.tracking import Artifacts, Run, Tags, read_shown_labels, run_name

PAGE = Artifacts.LABELS_PAGE
KIND = "labels in another form"


def run(config: LabelsKeys, preset: str, interrupts: Interrupts, out: str = "", overwrite: str = "false") -> None:
    """Read and check labelled windows; log a table and a page of charts; write them in the form that ``out`` names."""
    name = run_name("labels", Path(config.labels.path).stem, 0, config.project.name)
    with Run.start("labels", name, config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out or "none"})
        places = _places(out)
        check_outputs(places, KIND, is_true("overwrite", overwrite))

        @cache
        def own_bars() -> Bars:
            return load_bars(active, config.bars, config.windows.length, "labels")

        labels = read_shown_labels(config, own_bars)
        active.labels(labels, "labels")
        report = LabelsReport(labels, config.labels.charts)
        active.metrics(report.metrics())
        active.tags({Tags.LABELS_SHA256: labels.sha256})
        active.table(labels.rows(), Artifacts.LABELS_TABLE)
        if len(places) > 1:
            write_any_labels(labels, places[0], own_bars)
            active.artifact(places[0])
        page = report.html()
        for place in (active.folder / PAGE, *places[-1:]):
            _write(page, place)
        active.artifact(active.folder / PAGE)
        note_outputs(places, KIND)
        active.note(report.note())
        _print(report, places)


def _places(out: str) -> list[Path]:
    """Return the files that a user asked for, the page last. Raises: UserError if ``out`` is of no known form."""
    if not out:
        return []
    path = Path(out).expanduser()
    if not path.suffix:
        output_folder(out)  # refuses what cannot be a folder
        return [path / PAGE]
    if path.suffix.lower() not in WRITTEN or path.is_dir():
        raise UserError(f"out='{out}'; allowed: a file that ends in {', '.join(WRITTEN)}, or a folder")
    return [path, path.with_suffix(".html")]


def _write(page: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as e:
        raise UserError(f"out='{path}' cannot be written: {e}; give a folder you may write to") from e


def _print(report: LabelsReport, written: list[Path]) -> None:
    classes = Table(*CLASS_HEADERS)
    for row in report.class_rows():
        classes.add_row(*row)
    facts = Table("", "", show_header=False)
    for fact in report.facts:
        facts.add_row(*fact)
    for table in (classes, facts):
        table_console().print(table)
    for text in (*report.labels.joined, *report.cautions()):
        print(f"Note: {text}", flush=True)
    where = ", ".join(map(str, written)) or f"{PAGE} of the run"
    print(f"{report.summary()} -> {where}", flush=True)
