"""Results as text, tables and pictures for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moola_mlflow.core import lazy_face

if TYPE_CHECKING:
    from moola_mlflow.reports.bars_report import BarsReport
    from moola_mlflow.reports.command_results import (
        DetectResult,
        EvaluateResult,
        FinetuneResult,
        LabelResult,
        PretrainResult,
        result_fields,
    )
    from moola_mlflow.reports.compare import build_comparison, find_compared_runs
    from moola_mlflow.reports.detections import DetectionsReport
    from moola_mlflow.reports.document import Document, Heading, Para, output_folder
    from moola_mlflow.reports.evaluate_report import SCORE_HEADERS, EvaluateReport
    from moola_mlflow.reports.event_detections import EventDetectionsReport
    from moola_mlflow.reports.event_results import (
        event_card,
        event_console_lines,
        event_doubts,
        event_fit_line,
        event_note,
        event_version_tags,
    )
    from moola_mlflow.reports.finetune_results import (
        collapse_warning,
        detector_card,
        detector_version_tags,
        finetune_console_lines,
        finetune_note,
        fold_line,
        fold_run,
        list_doubts,
        uses_identity_encoder,
    )
    from moola_mlflow.reports.labels_report import CLASS_HEADERS, LabelsReport
    from moola_mlflow.reports.next_commands import waiting_uri
    from moola_mlflow.reports.plots.events import event_figures
    from moola_mlflow.reports.plots.finetuning import evidence_figures
    from moola_mlflow.reports.plots.interactive import curves_chart
    from moola_mlflow.reports.plots.png import Drawable, draw_all, draw_png
    from moola_mlflow.reports.plots.quality import quality_figure
    from moola_mlflow.reports.plots.training import curves_figure, lr_figure, reconstruction_figure
    from moola_mlflow.reports.pretrain_results import (
        Results,
        encoder_card,
        encoder_version_tags,
        pretrain_note,
        score_encoder,
    )
    from moola_mlflow.reports.rules_report import RulesReport
    from moola_mlflow.reports.run_report.build import build_report, find_report_subject
    from moola_mlflow.reports.scan_report import report_scan
    from moola_mlflow.reports.touchable import Plot, touch_page
    from moola_mlflow.reports.wrong_windows import wrong_windows_page

__all__, __getattr__, __dir__ = lazy_face(
    __name__,
    {
        "bars_report": ("BarsReport",),
        "compare": ("build_comparison", "find_compared_runs"),
        "detections": ("DetectionsReport",),
        "document": ("Document", "Heading", "Para", "output_folder"),
        "evaluate_report": ("SCORE_HEADERS", "EvaluateReport"),
        "event_detections": ("EventDetectionsReport",),
        "event_results": (
            "event_card",
            "event_console_lines",
            "event_doubts",
            "event_fit_line",
            "event_note",
            "event_version_tags",
        ),
        "command_results": (
            "DetectResult",
            "EvaluateResult",
            "FinetuneResult",
            "LabelResult",
            "PretrainResult",
            "result_fields",
        ),
        "next_commands": ("waiting_uri",),
        "plots.events": ("event_figures",),
        "scan_report": ("report_scan",),
        "touchable": ("Plot", "touch_page"),
        "wrong_windows": ("wrong_windows_page",),
        "finetune_results": (
            "collapse_warning",
            "detector_card",
            "detector_version_tags",
            "finetune_console_lines",
            "finetune_note",
            "fold_line",
            "fold_run",
            "list_doubts",
            "uses_identity_encoder",
        ),
        "labels_report": ("CLASS_HEADERS", "LabelsReport"),
        "plots.finetuning": ("evidence_figures",),
        "plots.png": ("Drawable", "draw_all", "draw_png"),
        "plots.quality": ("quality_figure",),
        "plots.interactive": ("curves_chart",),
        "plots.training": ("curves_figure", "lr_figure", "reconstruction_figure"),
        "pretrain_results": ("Results", "encoder_card", "encoder_version_tags", "pretrain_note", "score_encoder"),
        "rules_report": ("RulesReport",),
        "run_report.build": ("build_report", "find_report_subject"),
    },
)
