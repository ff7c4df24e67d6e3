"""report: a pre-training and the fine-tunings of its encoder as Markdown and one HTML page, logged on the run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from moola_mlflow.core import Interrupts, RunKeys, UserError, is_true, markdown_code, markdown_text
from moola_mlflow.reports import build_report, find_report_subject, output_folder
from moola_mlflow.tracking import Artifacts, Run, Tags, no_local_artifacts, run_name


def run(
    config: RunKeys, preset: str, interrupts: Interrupts, run_id: str = "", out: str = "", overwrite: str = "false"
) -> None:
    """Write the report of a run to its artifacts and, if given, to ``out``. The same runs give the same bytes."""
    name = run_name("report", run_id[:8] or "none", 0, config.project.name)
    with Run.start("report", name, config.tracking.experiment) as active:
        active.params({"run_id": run_id, "out": out})
        if not run_id:
            raise UserError("report needs a run: --run_id ID (-P run_id=ID) of a pretrain or finetune run")
        target, replaced = output_folder(out), is_true("overwrite", overwrite)
        subject = find_report_subject(run_id)
        document = build_report(subject)
        with tempfile.TemporaryDirectory() as scratch:
            files = document.write(Path(scratch), Artifacts.REPORT)
            with no_local_artifacts():
                active.client.log_artifacts(subject.run.id, scratch, Artifacts.REPORT)
        if target:
            document.replace(target, Artifacts.REPORT, replaced)
        active.tags({Tags.SUBJECT: subject.run.id})
        experiment, title = subject.run.run.info.experiment_id, subject.run.name
        tunings = f"{len(subject.tunings)} fine-tunings of its encoder"
        copied = f" A copy is in {markdown_code(target)}." if target else ""
        active.note(
            f"**Report on [{markdown_text(title)}](#/experiments/{experiment}/runs/{subject.run.id})** and {tunings}: "
            f"artifacts `{Artifacts.REPORT}/` of that run.{copied}\n"
        )
        where = f"under {Artifacts.REPORT}/ of run {subject.run.id}" + (f", and in {target}" if target else "")
        print(f"Report on {title} and {tunings}: {', '.join(files)} {where}", flush=True)
