"""rules: which labelling rules there are, and how often each finds something on given bars."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from moola_mlflow.cli.bar_steps import load_bars
from moola_mlflow.cli.progress import table_console
from moola_mlflow.core import Interrupts, RulesKeys, UserError, check_outputs, is_true, note_outputs
from moola_mlflow.reports import RulesReport, output_folder
from moola_mlflow.tracking import Artifacts, Run, run_name
from moola_mlflow.windows import make_windows

TABLE, PAGE = Artifacts.RULES_TABLE, Artifacts.RULES_PAGE
KIND = "rules"


def run(config: RulesKeys, preset: str, interrupts: Interrupts, out: str = "", overwrite: str = "false") -> None:
    """Apply all rules to windows of bars; log a table and a page with pictures, and copy both to ``out``."""
    drawn = config.objective
    name = run_name("rules", f"{drawn.family}{drawn.num_rules}", drawn.rules_seed, config.project.name)
    with Run.start("rules", name, config.tracking.experiment) as active:
        active.config(config)
        active.params({"out": out or "none"})
        folder = output_folder(out)
        outputs = [folder / file for file in (TABLE, PAGE)] if folder else []
        check_outputs(outputs, KIND, is_true("overwrite", overwrite))
        bars = load_bars(active, config.bars, config.windows.length, "rules")
        windows = make_windows(bars, config.windows.length, max_gap_minutes=config.bars.max_gap_minutes)
        report = RulesReport.of(windows, config)
        for place in [active.folder, *([folder] if folder else [])]:
            _write(report, place)
        note_outputs(outputs, KIND)
        for file in (TABLE, PAGE):
            active.artifact(active.folder / file)
        active.metrics(report.metrics())
        active.note(report.note())
        _print(["selector", "rules", "found", "what it is"], report.selectors())
        _print(["outcome", "rules", "found", "classes", "what it is"], report.outcomes())
        where = f"{folder / PAGE} and {folder / TABLE}" if folder else f"{PAGE} and {TABLE} of the run"
        print(f"{report.summary()} -> {where}", flush=True)


def _print(headers: list[str], rows: list[tuple[str, ...]]) -> None:
    table = Table(*headers)
    for row in rows:
        table.add_row(*row)
    table_console().print(table)


def _write(report: RulesReport, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TABLE).write_text(report.csv(), encoding="utf-8", newline="\n")
        (folder / PAGE).write_text(report.html(), encoding="utf-8")
    except OSError as e:
        raise UserError(f"out='{folder}' cannot be written: {e}; give a folder you may write to") from e
