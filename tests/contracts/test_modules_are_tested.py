"""Every module that decides something has a test file of its name, or one that is named here."""

from __future__ import annotations

from pathlib import Path

import pytest
from paths import ROOT

PACKAGE, TESTS = ROOT / "moola_mlflow", ROOT / "tests"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("[!_]*.py"))

SUITES = {
    "evaluation/baselines": "contracts/test_baselines.py",
    "labels/rules": "contracts/test_rules.py",
    "models/encoders": "contracts/test_encoders.py",
    "models/objectives": "contracts/test_objectives.py",
}
"""Folders of a registry: its suite tries each file of the folder."""
DECLARE = {
    "core/config/annotate.py",
    "core/config/bars.py",
    "core/config/evaluation.py",
    "core/config/features.py",
    "core/config/labels.py",
    "core/config/models.py",
    "core/config/sweep.py",
    "core/config/tracking.py",
    "core/config/training.py",
    "core/config/windows.py",
    "core/names.py",
    "training/events.py",
}
"""Modules that name keys, metrics or events and decide nothing."""
ELSEWHERE = {
    "bars/checks.py": "unit/bars/test_reader.py",
    "bars/column_names.py": "unit/bars/test_forms.py",
    "bars/columns.py": "unit/bars/test_reader.py",
    "bars/folder.py": "unit/bars/test_forms.py",
    "bars/ingest.py": "unit/bars/test_store.py",
    "bars/instruments.py": "unit/bars/test_reader.py",
    "bars/raw.py": "unit/bars/test_forms.py",
    "bars/summary.py": "unit/bars/test_sample.py",
    "bars/text_file.py": "unit/bars/test_forms.py",
    "bars/understood.py": "unit/bars/test_forms.py",
    "cli/child_commands.py": "unit/cli/test_tour.py",
    "cli/commands/compare.py": "e2e/report/test_report_command.py",
    "cli/commands/features.py": "e2e/data/test_data.py",
    "cli/commands/tour.py": "e2e/main/test_tour_command.py",
    "cli/event_finetune.py": "e2e/finetune/test_finetune_events.py",
    "cli/entry_points.py": "unit/cli/test_help.py",
    "cli/steps.py": "unit/cli/test_pretrain_overlap.py",
    "cli/tracked_crossval.py": "e2e/finetune/test_finetune_run.py",
    "cli/tracked_training.py": "e2e/pretrain/test_training_path.py",
    "core/config/base.py": "unit/core/test_config.py",
    "core/config/commands.py": "unit/core/test_config.py",
    "core/config/presets.py": "unit/core/test_config.py",
    "core/config/project.py": "unit/cli/test_parser.py",
    "core/config/resolve.py": "unit/core/test_config.py",
    "reports/command_results.py": "unit/api/test_verbs.py",
    "labels/columns.py": "unit/labels/test_label_files.py",
    "cli/scanning.py": "e2e/detect/test_detect.py",
    "labels/forms/batches.py": "unit/labels/test_annotation_batches.py",
    "labels/forms/any_form.py": "unit/labels/test_forms.py",
    "labels/forms/label_studio.py": "unit/labels/test_forms.py",
    "labels/forms/time_table.py": "unit/labels/test_forms.py",
    "labels/label_table.py": "unit/labels/test_label_files.py",
    "labels/labelled_set.py": "unit/labels/test_label_files.py",
    "labels/placing.py": "unit/labels/test_timed_spans.py",
    "labels/window_names.py": "unit/labels/test_timed_spans.py",
    "reports/plots/bars.py": "e2e/data/test_data.py",
    "reports/plots/compare.py": "unit/reports/test_compare.py",
    "reports/plots/figure.py": "unit/reports/test_compare.py",
    "reports/plots/quality.py": "unit/features/test_quality.py",
    "reports/scan_report.py": "e2e/finetune/test_finetune_events.py",
    "reports/run_report/pretraining.py": "e2e/report/test_report_command.py",
    "serving/detector.py": "e2e/serve/test_serving.py",
    "serving/encoder.py": "e2e/pretrain/test_pretrain.py",
    "sweep/pretrain_trials.py": "e2e/sweep/test_sweep.py",
    "tracking/artifact_places.py": "unit/tracking/test_foreign_folders.py",
    "tracking/delivery/files.py": "unit/tracking/test_journal.py",
    "tracking/registry/signatures.py": "e2e/finetune/test_finetune_events.py",
    "tracking/registry/smoke_test.py": "e2e/promote/test_promote.py",
    "tracking/session.py": "unit/tracking/test_run.py",
}
"""Where a module is tested whose behaviour shows in a test of another name."""


def own_places(module: str) -> list[str]:
    """Where the tests of a module's name may lie; of two modules of a room with one name the deeper adds its folder."""
    path = Path(module)
    if module.startswith("cli/commands/"):
        return [f"e2e/{path.stem}"]
    room, folder = path.parts[0], path.parent.name
    is_second = f"{room}/{path.name}" in MODULES and len(path.parts) > 2
    return [f"unit/{room}/test_{path.stem}{end}.py" for end in ([] if is_second else [""]) + [f"_{folder}"]]


def has_own_test(module: str) -> bool:
    return any((TESTS / place).exists() for place in own_places(module))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_its_tests(module: str) -> None:
    suite = SUITES.get(Path(module).parent.as_posix())
    known = module in DECLARE or module in ELSEWHERE or suite is not None or has_own_test(module)
    assert known, f"{module} has no test: write tests/{own_places(module)[0]}"


def test_no_list_names_what_is_gone_or_has_a_test_of_its_name() -> None:
    listed = {*DECLARE, *ELSEWHERE}
    assert listed - set(MODULES) == set()
    assert {module for module in listed if has_own_test(module)} == set()
    assert DECLARE & set(ELSEWHERE) == set()
    missing = [place for place in {*SUITES.values(), *ELSEWHERE.values()} if not (TESTS / place).is_file()]
    assert missing == []
    assert [folder for folder in SUITES if not (PACKAGE / folder).is_dir()] == []


def test_a_module_that_declares_has_no_function_of_its_own() -> None:
    """A list of names needs no test; what computes does."""
    for module in DECLARE:
        text = (PACKAGE / module).read_text(encoding="utf-8")
        assert "\ndef " not in text.replace("\ndef _", "\n"), module
