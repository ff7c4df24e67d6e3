"""Runs read back: what they logged, and which pre-training made the encoder of a fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

from moola_mlflow.core import UserError
from moola_mlflow.tracking import Artifacts, Tags, encoder_sources, read_run, search_runs, tunings_of
from moola_mlflow.tracking.run_reader import RunRecord, Sources

HOUR_MS = 3_600_000


@pytest.fixture
def client(workdir: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


def made(client: mlflow.MlflowClient, stage: str, at_ms: int = 0, **tags: str) -> RunRecord:
    """Make a run of a command; return it as the store has it."""
    tags = {Tags.STAGE: stage, **{key.replace("__", "."): value for key, value in tags.items()}}
    run = client.create_run("0", start_time=at_ms or None, tags=tags, run_name=f"{stage}-name")
    return RunRecord(client.get_run(run.info.run_id))


def again(client: mlflow.MlflowClient, record: RunRecord) -> RunRecord:
    return RunRecord(client.get_run(record.id))


def test_artifacts_are_listed_without_the_runs_own_report_and_read_once(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = made(client, "pretrain")
    client.log_text(record.id, "abc", "deep/er/a.txt")
    client.log_text(record.id, "{", "damaged.json")
    client.log_text(record.id, "x", f"{Artifacts.REPORT}/report.md")
    assert record.files == {"damaged.json": 1, "deep/er/a.txt": 3}
    assert (record.text("deep/er/a.txt"), record.text("missing"), record.json("damaged.json")) == ("abc", None, None)
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda **_: pytest.fail("it was read before"))
    assert record.bytes("deep/er/a.txt") == b"abc"
    assert record.bytes("missing") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, {}),
        ("[1, 2]", {}),
        ("a: [", {}),
        ("trainer: {epochs: 7}\nnote: text\n", {"trainer": {"epochs": 7}}),
        ("objective: {name: path}\n", {"objective": {"name": "price_path"}}),
    ],
    ids=["not logged", "a list", "damaged", "sections alone", "an early name"],
)
def test_the_configuration_is_read_as_sections(client: mlflow.MlflowClient, text: str | None, expected: object) -> None:
    record = made(client, "pretrain")
    if text is not None:
        client.log_text(record.id, text, Artifacts.CONFIG)
    assert record.config == expected


def test_of_two_values_at_one_step_the_later_one_counts(client: mlflow.MlflowClient) -> None:
    record = made(client, "pretrain")
    for value, at_ms, step in ((1.0, 10, 0), (2.0, 30, 1), (3.0, 20, 1)):
        client.log_metric(record.id, "a", value, at_ms, step)
    assert record.history("a") == {0: 1.0, 1: 2.0}


def test_children_are_those_of_a_command_oldest_first(client: mlflow.MlflowClient) -> None:
    parent = made(client, "finetune")
    late, early = (made(client, "fold", at, **{"mlflow__parentRunId": parent.id}) for at in (200, 100))
    made(client, "trial", 50, **{"mlflow__parentRunId": parent.id})
    assert [child.id for child in parent.children("fold")] == [early.id, late.id]


def test_a_run_is_read_by_its_id_and_a_deleted_one_is_refused_with_how_to_restore_it(
    client: mlflow.MlflowClient,
) -> None:
    record = made(client, "pretrain")
    assert (read_run(record.id, "run_id").name, record.stage) == ("pretrain-name", "pretrain")
    client.delete_run(record.id)
    with pytest.raises(UserError, match=f"run_id='{record.id}' .* is deleted; bring it back: mlflow runs restore"):
        read_run(record.id, "run_id")


def test_an_id_that_no_run_has_is_refused_with_the_run_that_it_may_mean(client: mlflow.MlflowClient) -> None:
    with pytest.raises(UserError, match=r"has no pretrain or finetune run yet; make one: mlflow run . -e pretrain"):
        read_run("x", "run_id")
    record = made(client, "pretrain")
    for text in ("pretrain-name", record.id[:6]):
        with pytest.raises(UserError, match=f"did you mean '{record.id}'"):
            read_run(text, "run_id")
    with pytest.raises(UserError, match="A run's id is on its page in the UI"):
        read_run("nothing like it", "run_id")


def test_more_runs_than_a_page_are_found_and_a_limit_ends_the_search(
    client: mlflow.MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moola_mlflow.tracking.run_reader.PAGE", 2)
    ids = [made(client, "pretrain", at).id for at in (300, 100, 200)]
    assert [run.id for run in search_runs({Tags.STAGE: "pretrain"})] == [ids[1], ids[2], ids[0]]
    assert len(search_runs({Tags.STAGE: "pretrain"}, limit=1)) == 2  # a whole page
    assert search_runs({Tags.STAGE: "pretrain"}, experiments=["7"]) == []


def test_the_tags_of_a_fine_tuning_say_which_runs_made_its_encoders(client: mlflow.MlflowClient) -> None:
    both = made(client, "finetune", moola__encoder="models:/a/1,out/b", moola__encoder_run_id="one,two")
    assert encoder_sources(both) == Sources(("one", "two"))
    lacking = made(client, "finetune", moola__encoder="models:/a/1,out/b", moola__encoder_run_id="one")
    found = encoder_sources(lacking)
    assert (found.run_ids, "does not say which run made each encoder" in found.unknown) == (("one",), True)


@pytest.fixture
def version_of_run(client: mlflow.MlflowClient) -> str:
    """The run that made version 1 of `small`, whose alias `champion` names it."""
    run_id = made(client, "pretrain").id
    client.create_registered_model("small")
    client.create_model_version("small", "nowhere", run_id=run_id)
    client.set_registered_model_alias("small", "champion", "1")
    return run_id


def test_an_early_fine_tuning_says_it_by_a_uri_that_cannot_change_its_meaning(
    client: mlflow.MlflowClient, version_of_run: str
) -> None:
    tuning = made(client, "finetune")
    client.log_param(tuning.id, "finetune.encoder", "models:/small/1, runs:/abc/encoder")
    assert encoder_sources(again(client, tuning)) == Sources((version_of_run, "abc"))
    client.delete_model_version("small", "1")
    assert encoder_sources(again(client, tuning)).run_ids == ("abc",)


@pytest.mark.parametrize(
    ("card", "expected", "unknown"),
    [
        (None, (), "an alias that may have moved since, and it ended (FINISHED) before it wrote its detector's card"),
        ({"encoders": [{"run_id": "made"}]}, ("made",), ""),
        ({"encoders": [{}]}, (), "the card of its encoder 'models:/small@champion' names no run"),
    ],
    ids=["no card", "a card", "a card without a run"],
)
def test_an_early_fine_tuning_by_an_alias_says_it_on_its_detectors_card(
    client: mlflow.MlflowClient,
    version_of_run: str,
    card: dict[str, Any] | None,
    expected: tuple[str, ...],
    unknown: str,
) -> None:
    tuning = made(client, "finetune")
    client.log_param(tuning.id, "finetune.encoder", "models:/small@champion")
    if card is not None:
        client.log_text(tuning.id, json.dumps(card), Artifacts.DETECTOR_CARD)
    client.set_terminated(tuning.id, "FINISHED")
    found = encoder_sources(again(client, tuning))
    assert found.run_ids == expected
    assert unknown in found.unknown
    assert bool(found.unknown) == bool(unknown)


def test_the_fine_tunings_of_a_pretraining_are_the_later_ones_that_read_its_encoder(
    client: mlflow.MlflowClient,
) -> None:
    now = 100 * HOUR_MS
    own = made(client, "pretrain", now)
    tags = {"moola__encoder": "models:/small/1", "moola__encoder_run_id": own.id}
    used = made(client, "finetune", now + 1, **tags)
    made(client, "finetune", now - 2 * HOUR_MS, **tags)  # before the encoder existed
    skewed = made(client, "finetune", now - HOUR_MS // 2, **tags)  # on a machine whose clock is slow
    made(client, "finetune", now + 2, **{**tags, "moola__encoder_run_id": "another"})
    unknown = made(client, "finetune", now + 3)
    client.log_param(unknown.id, "finetune.encoder", "models:/small@champion")
    found, unclear = tunings_of(own)
    assert {run.id for run in found} == {used.id, skewed.id}
    assert [run.id for run, _ in unclear] == [unknown.id]
