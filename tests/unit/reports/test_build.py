"""A report warns of what its runs cannot show, and says which run it is about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from harness import Store

from moola_mlflow.core import UserError
from moola_mlflow.reports.run_report import build
from moola_mlflow.reports.run_report.build import build_report, find_report_subject

COMMIT = "mlflow.source.git.commit"
CONFIG = "bars: {path: sample}\nobjective: {name: masked, hide_masked: false}\n"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("made", f"{store.folder}/made"))
    return store


def add_run(
    store: Store, stage: str, status: str = "FINISHED", files: dict[str, Any] | None = None, **tags: str
) -> str:
    """Add a run with tags (two underscores in a name are a dot) and artifacts; return its id."""
    named = {"moola.stage": stage} if stage else {}
    experiment = mlflow.get_experiment_by_name("made").experiment_id  # type: ignore[union-attr]
    tags = {key.replace("__", "."): value for key, value in tags.items()}
    run_id = store.client.create_run(experiment, tags={**named, **tags}, run_name=f"a {stage}").info.run_id
    for name, content in (files or {}).items():
        store.client.log_text(run_id, content if isinstance(content, str) else json.dumps(content), name)
    store.client.set_terminated(run_id, status)
    return str(run_id)


def add_tuning(store: Store, source: str, **tags: str) -> str:
    """Add a fine-tuning that recorded which run made its encoder."""
    return add_run(store, "finetune", moola__encoder=f"runs:/{source}/encoder", moola__encoder_run_id=source, **tags)


def first_lines(run_id: str) -> str:
    """Return what a report says before its first section."""
    return build_report(find_report_subject(run_id)).markdown().partition("## ")[0]


def test_what_the_figures_cannot_show_is_said_before_them(store: Store) -> None:
    commits = [{COMMIT.replace(".", "__"): name} for name in ("one", "two")]
    run = add_run(store, "pretrain", "KILLED", {"config.yaml": CONFIG}, moola__identity="true", **commits[0])
    add_tuning(store, run, moola__weak_labels="true", **commits[1])
    text = first_lines(run)
    assert "> It is not known whether" not in text
    assert "> **It is not known whether this pre-training helps" in text
    assert "> ✘ The run is KILLED: the report lacks what the run did not reach." in text
    assert "> ✘ Identity: an encoder was shown the steps" in text
    assert "> ⚠ The labels are WEAK" in text
    assert "> ⚠ The bars are the embedded sample." in text
    assert "> ⚠ The runs come from 2 different commits." in text


def test_a_plain_run_has_no_warning(store: Store) -> None:
    text = first_lines(add_run(store, "pretrain"))
    assert "⚠" not in text
    assert "✘" not in text


def test_a_fine_tuning_leads_to_the_run_that_made_its_encoder(store: Store) -> None:
    run = add_run(store, "pretrain")
    tuning = add_tuning(store, run)
    subject = find_report_subject(tuning)
    assert (subject.run.id, [one.id for one in subject.tunings]) == (run, [tuning])


def test_many_fine_tunings_of_unknown_origin_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "NAMED", 2)
    run = add_run(store, "pretrain")
    lost = [add_run(store, "finetune", "KILLED", {"config.yaml": "finetune: {encoder: 'models:/e@x'}"}) for _ in "abc"]
    text = first_lines(run)
    assert sum(f"It is not recorded whether `{one}` (a finetune) belongs here" in text for one in lost) == 2
    assert "> ⚠ The same holds for 1 more." in text


def test_a_fine_tuning_that_reads_no_encoder_is_left_out_by_name(store: Store) -> None:
    run = add_run(store, "pretrain")
    store.client.log_text(add_tuning(store, run), '{"fitted": "price_path"}', "detector/detector.json")
    assert "> ⚠ Left out, because they read no encoder (finetune.inputs=price_path): a finetune." in first_lines(run)


def test_another_kind_of_run_is_refused_with_what_to_give(store: Store) -> None:
    give = "give a pretrain or finetune run"
    refused = {
        add_run(store, "fold", mlflow__parentRunId="whole"): f"is a fold run; {give} (it is a fold of whole)",
        add_run(store, "sweep"): f"is a sweep run; {give}. Retrain the sweep's best configuration",
        add_run(store, ""): f"is not a run of this project (it has no tag moola.stage); {give}",
        add_run(
            store, "finetune", files={"config.yaml": "finetune: {freeze: true}"}
        ): "without an encoder, so it has no",
    }
    for run, said in refused.items():
        with pytest.raises(UserError) as raised:
            find_report_subject(run)
        assert said in str(raised.value)
