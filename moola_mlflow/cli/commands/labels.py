"""labels: what labelled windows hold, as a table and as charts; and the same windows in another form."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from rich.table import Table

from moola_mlflow.bars import Bars
from moola_mlflow.cli import steps
from moola_mlflow.cli.progress import table_console
from moola_mlflow.core import Interrupts, LabelsKeys, UserError
from moola_mlflow.labels import WRITTEN, write_any_labels
from moola_mlflow.reports import CLASS_HEADERS, LabelsReport, output_folder
from moola_mlflow.tracking import Artifacts, Run, Tags, read_shown_labels, run_name

PAGE = Artifacts.LABELS_PAGE


def run(config: LabelsKeys, preset: str, interrupts: Interrupts, out: str = "", overwrite: str = "false") -> None:
    """Read and check labelled windows; log a table and a page of charts; write them in the form that ``out`` names."""
    name = run_name("labels", Path(config.labels.path).stem, 0)
    with Run.start("labels", name, config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out or "none"})
        target = _target(out, overwrite)

        @cache
        def load_bars() -> Bars:
            return steps.load_bars(active, config.bars, config.windows.length, "labels")

        labels = read_shown_labels(config, load_bars)
        active.labels(labels, "labels")
        report = LabelsReport(labels, config.labels.charts)
        active.metrics(report.metrics())
        active.tags({Tags.LABELS_SHA256: labels.sha256})
        active.table(labels.rows(), Artifacts.LABELS_TABLE)
        page, places = report.html(), [active.folder / PAGE]
        if target is not None:
            places.append(target.with_suffix(".html") if target.suffix in WRITTEN else target / PAGE)
        for place in places:
            _write(page, place)
        active.artifact(active.folder / PAGE)
        if target is not None and target.suffix in WRITTEN:
            write_any_labels(labels, target, load_bars)
            active.artifact(target)
        active.note(report.note())
        _print(report, [*([str(target)] if target is not None else []), str(places[-1])])


def _target(out: str, overwrite: str) -> Path | None:
    """Return the file or folder that results go to. Raises: UserError if a file is there, which may be hand-made."""
    if not out:
        return None
    path = Path(out).expanduser()
    if path.suffix not in WRITTEN:
        if path.suffix:
            raise UserError(f"out='{out}'; allowed: a file that ends in {', '.join(WRITTEN)}, or a folder")
        return output_folder(str(path))
    if path.exists() and overwrite.lower() != "true":
        raise UserError(f"out='{out}' exists, and labels may be hand-made; give another name, or overwrite=true")
    return path


def _write(page: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as e:
        raise UserError(f"out='{path}' cannot be written: {e}; give a folder you may write to") from e


def _print(report: LabelsReport, written: list[str]) -> None:
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
    print(f"{report.summary()} -> {', '.join(written) if len(written) > 1 else f'{PAGE} of the run'}", flush=True)
