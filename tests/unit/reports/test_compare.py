"""Comparison of runs: when a paired difference may be taken, what it is, and what is said where it may not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag
from small_labels import small_labels

from moola_mlflow.core import Config, resolve
from moola_mlflow.evaluation.metrics import Interval
from moola_mlflow.labels.labelled_set import LabelledSet, read_labels, write_labels
from moola_mlflow.labels.overlap import overlap_groups
from moola_mlflow.reports import compare
from moola_mlflow.reports.paired import Paired, pair
from moola_mlflow.reports.plots.compare import literal, overlay_figure, scores_figure
from moola_mlflow.reports.plots.figure import png_bytes
from moola_mlflow.tracking.run_reader import RunRecord, Sources, encoder_sources

FOLDS = [{"fold": k, "num_train": 20, "num_test": 10, "num_purged": 0} for k in range(4)]
SECOND = "second of two classes"


def record(
    stage: str = "finetune",
    tags: dict[str, str] | None = None,
    metrics: dict[str, float] | None = None,
    params: dict[str, str] | None = None,
    files: dict[str, Any] | None = None,
    status: str = "FINISHED",
    run_id: str = "a",
) -> RunRecord:
    """A run as the store would give it back, with its artifacts fetched already."""
    info = RunInfo(run_id, "0", "me", status, 0, 1, "active", run_name=f"name of {run_id}")
    all_tags = {"moola.stage": stage, "moola.data_sha256": "labels", **(tags or {})}
    data = RunData(
        [Metric(key, value, 0, 0) for key, value in (metrics or {}).items()],
        [Param(key, value) for key, value in (params or {}).items()],
        [RunTag(key, value) for key, value in all_tags.items()],
    )
    names = ("config.yaml", "cv_summary.json", "predictions.json", "detector/detector.json")
    given = dict.fromkeys(names) | {
        name: (content if isinstance(content, str) else json.dumps(content)).encode()
        for name, content in (files or {}).items()
    }
    return RunRecord(Run(info, data), given)


def scored(
    right: list[bool], draws: tuple[tuple[int, int], ...] = ((17, 0),), num_groups: int | None = None, **changed: Any
) -> RunRecord:
    """A fine-tuning that names the class and the span of some windows right, in its first draw; elsewhere of none."""
    n = len(right)
    rows = [
        {
            "window_id": f"w{i}", "seed": seed, "repeat": repeat + 1, "label": SECOND if i % 2 else "a",
            "predicted": (SECOND if i % 2 else "a") if ok and k == 0 else ("a" if i % 2 else SECOND),
            "expansion_start": 30, "expansion_end": 40, "predicted_start": 30, "predicted_end": 40,
        }
        for k, (seed, repeat) in enumerate(draws) for i, ok in enumerate(right)
    ]  # fmt: skip
    summary = {
        "fold_results": [{"seed": s, "repeat": r, **row} for s, r in draws for row in changed.pop("folds", FOLDS)],
        "num_groups": n if num_groups is None else num_groups,
        "config": {"cv": {"folds": 4, "kind": "auto", "embargo_bars": 105, **changed.pop("cv", {})}},
    }
    table = {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}
    files = {"cv_summary.json": summary, "predictions.json": table, **changed.pop("files", {})}
    return record(files=files, **changed)


HALF = [i < 20 for i in range(40)]
MOST = [i < 30 for i in range(40)]


def test_the_difference_is_second_minus_first_on_the_same_windows() -> None:
    found = pair(scored(HALF), scored(MOST))
    assert isinstance(found, Paired)
    joint = found.differences["joint_success_at_3"]
    assert joint.mean == pytest.approx(10 / 40)
    assert 0 < joint.lo < joint.mean < joint.hi
    assert (found.num_windows, found.num_groups, found.num_repeats, found.most_repeats) == (40, 40, 1, 1)
    back = pair(scored(MOST), scored(HALF))
    assert isinstance(back, Paired)
    assert back.differences["joint_success_at_3"].mean == pytest.approx(-10 / 40)


def test_draws_that_only_one_run_has_do_not_count() -> None:
    # In its second draw the second run is wrong everywhere: with it the difference would be -0.125.
    found = pair(scored(HALF), scored(MOST, draws=((17, 0), (17, 1))))
    assert isinstance(found, Paired)
    assert found.differences["joint_success_at_3"].mean == pytest.approx(10 / 40)
    assert (found.num_repeats, found.most_repeats) == (1, 2)


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (scored(MOST, tags={"moola.data_sha256": "others"}), "not scored on the same labels"),
        (scored(MOST, tags={"moola.data_sha256": ""}), "not scored on the same labels"),
        (record(status="KILLED", run_id="b"), r"name of b (KILLED) holds no out-of-fold predictions"),
        (scored(MOST, cv={"folds": 5}), "their folds differ (cv.folds 4 and 5)"),
        (
            scored(MOST, draws=((23, 0),)),
            "no draw of seed and repeat has folds of equal sizes in both (seeds [17] and [23])",
        ),
        (
            scored(MOST, folds=[{**row, "num_purged": 1} for row in FOLDS]),
            "no draw of seed and repeat has folds of equal sizes",
        ),
        (scored(MOST[:39]), "not of the same windows"),
    ],
)
def test_where_labels_or_folds_differ_there_is_no_difference_but_a_reason(second: RunRecord, why: str) -> None:
    found = pair(scored(HALF), second)
    assert isinstance(found, str)
    assert why in found


def labelled(tmp_path: Path) -> tuple[LabelledSet, dict[str, Any]]:
    """Windows of which some overlap, in a file, and the configuration that names it."""
    labels = replace(small_labels(40, times="crowded"), window_id=np.array([f"w{i}" for i in range(40)]))
    write_labels(labels, tmp_path / "labels.parquet")
    read = read_labels(tmp_path / "labels.parquet")
    config = resolve({}, {"labels.path": str(tmp_path / "labels.parquet")})
    return read, {"config.yaml": config.to_yaml()}


def test_windows_that_overlap_are_resampled_together_by_what_the_labels_say(tmp_path: Path) -> None:
    labels, files = labelled(tmp_path)
    num_groups = len(np.unique(overlap_groups(labels, across_instruments=True)))
    assert num_groups < 40
    tags = {"moola.data_sha256": labels.sha256}
    runs = [scored(right, num_groups=num_groups, tags=tags, files=files) for right in (HALF, MOST)]
    found = pair(*runs)
    assert isinstance(found, Paired)
    assert found.num_groups == num_groups


def test_windows_that_overlap_get_no_interval_where_the_labels_are_gone_or_others(tmp_path: Path) -> None:
    labels, files = labelled(tmp_path)
    other = {"moola.data_sha256": "of an earlier content"}
    runs = [scored(right, num_groups=9, tags=other, files=files) for right in (HALF, MOST)]
    assert "their file has changed" in str(pair(*runs))
    (tmp_path / "labels.parquet").unlink()
    tags = {"moola.data_sha256": labels.sha256}
    runs = [scored(right, num_groups=9, tags=tags, files=files) for right in (HALF, MOST)]
    found = pair(*runs)
    assert isinstance(found, str)
    assert "cannot be read again" in found


def test_only_keys_that_differ_are_shown_and_a_missing_one_is_missing() -> None:
    assert compare.differing([{"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}]) == {
        "b": ["2", "3"],
        "c": [None, "4"],
    }
    assert compare.differing([{"a": "1"}, {"a": "1"}]) == {}


def test_the_same_alias_that_meant_two_encoders_is_a_difference() -> None:
    def run(encoder: str) -> RunRecord:
        config = resolve({}, {"finetune.encoder": "models:/e@candidate"}).to_yaml()
        card = {"encoders": [{"uri": "models:/e@candidate", "run_id": encoder}]}
        return record(files={"config.yaml": config, "detector/detector.json": card})

    keys = compare.differing([compare.configured(run("one")), compare.configured(run("two"))])
    assert keys == {"encoder made by run": ["one", "two"]}


def test_what_a_run_recorded_of_its_encoders_counts_and_a_gap_is_said() -> None:
    def sources(**tags: str) -> Sources:
        config = resolve({}, {"finetune.encoder": "models:/e@candidate"}).to_yaml()
        return encoder_sources(record(tags={key.replace("_", ".", 1): value for key, value in tags.items()},
                                      files={"config.yaml": config}, status="KILLED"))  # fmt: skip

    # A run that was killed has no card, but its tags were set before it trained.
    assert sources(moola_encoder="models:/e/1", moola_encoder_run_id="one") == Sources(("one",))
    assert sources(moola_encoder="models:/e/1,models:/e/2", moola_encoder_run_id="one,two").run_ids == ("one", "two")
    partly = sources(moola_encoder="models:/e/1,a.pt", moola_encoder_run_id="one")
    assert partly.run_ids == ("one",)
    assert "does not say which run made each" in partly.unknown
    assert "it ended (KILLED) before" in sources().unknown


def test_losses_of_unlike_objectives_data_and_commits_come_with_a_warning() -> None:
    a, b = record("pretrain"), record("pretrain", tags={"moola.data_sha256": "others", "moola.identity": "true"})
    assert compare.warnings([a, a], {}) == []
    said = " ".join(compare.warnings([a, b], {"objective.name": ["price_path", "masked"], "optimizer.lr": ["1", "2"]}))
    assert "same bars" in said
    assert "(objective.name differ)" in said
    assert "measure copying" in said
    assert "B is KILLED" in " ".join(compare.warnings([a, record("pretrain", status="KILLED")], {}))


@pytest.mark.parametrize("given", ["", "one", "one,", ",".join("abcdefghi")])
def test_fewer_than_two_or_too_many_runs_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="allowed: 2 to 8"):
        compare.find_compared_runs(given)


def test_a_run_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="names 'one' twice"):
        compare.find_compared_runs("one,two, one")


@pytest.mark.parametrize("name", ["$\\frac{", "_hidden", "a" * 500, "<script>", "", "$x$ | `y`\n"])
def test_any_name_can_stand_in_a_picture(name: str) -> None:
    curves = {"val/loss": [[{0: 1.0, 1: 0.5}], [{0: 1.0}]], "train/loss": [[{0: 1.0}, {0: 2.0}], []]}
    assert png_bytes(overlay_figure([name, "B"], curves, "loss")).startswith(b"\x89PNG")
    assert png_bytes(scores_figure([name, "B"], {"F1": [Interval(0.5, 0.4, 0.6), None]})).startswith(b"\x89PNG")
    assert not literal(name).startswith("_")
    assert len(literal(name)) < 60


def test_a_legend_names_each_curve_once() -> None:
    curves = {"val/nll": [[{0: 1.0}, {0: 2.0}, {0: 3.0}], [{0: 1.0}]]}
    legend = overlay_figure(["A", "B"], curves, "folds").axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["A  val/nll", "B  val/nll"]


def test_the_default_configuration_names_the_keys_that_folds_depend_on() -> None:
    from moola_mlflow.reports.paired import DRAWN_BY

    assert set(DRAWN_BY) <= set(Config().cv.model_dump())
