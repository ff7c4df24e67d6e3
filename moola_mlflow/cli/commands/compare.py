"""compare: two or more runs of one stage side by side, in the console and as a page."""

from __future__ import annotations

from moola_mlflow.core import Interrupts, RunKeys, is_true
from moola_mlflow.reports import build_comparison, find_compared_runs, output_folder
from moola_mlflow.tracking import Run, Tags, run_name

FOLDER = "compare"


def run(
    config: RunKeys, preset: str, interrupts: Interrupts, run_ids: str = "", out: str = "", overwrite: str = "false"
) -> None:
    """Show what differs between runs, log the page on a run of its own and, if given, copy it to ``out``."""
    with Run.start(
        "compare", run_name("compare", "runs", 0, config.project.name), config.tracking.experiment
    ) as active:
        active.params({"run_ids": run_ids, "out": out})
        target, replaced = output_folder(out), is_true("overwrite", overwrite)
        runs = find_compared_runs(run_ids)
        document, short = build_comparison(runs), build_comparison(runs, short=True).markdown()
        files = document.write(active.folder / FOLDER, FOLDER)
        active.artifact(active.folder / FOLDER, FOLDER)
        if target:
            document.replace(target, FOLDER, replaced)
        active.tags({Tags.COMPARED: ",".join(one.id for one in runs)})
        active.note(short.partition("\n\n")[2])
        copied = f", and in {target}" if target else ""
        print(f"{short}\nWhole, with curves: {', '.join(files)} under {FOLDER}/{copied}", flush=True)
