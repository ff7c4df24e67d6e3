"""A paired difference needs the same labels, folds and windows; without them there is a reason instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_records import FOLDS, record, scored
from small_labels import small_labels

from moola_mlflow.core import FinetuneKeys, make_config
from moola_mlflow.labels.label_files import read_span_labels, write_labels
from moola_mlflow.labels.labelled_set import LabelledSet
from moola_mlflow.labels.overlap import overlap_groups
from moola_mlflow.reports.paired import DRAWN_BY, Paired, pair
from moola_mlflow.tracking.run_reader import RunRecord

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
    """Write windows, some of them overlapping, to a file; return them and the configuration that names the file."""
    labels = replace(small_labels(40, times="crowded"), window_id=np.array([f"w{i}" for i in range(40)]))
    write_labels(labels, tmp_path / "labels.parquet")
    read = read_span_labels(tmp_path / "labels.parquet")
    config = make_config(FinetuneKeys, {}, {"labels.path": str(tmp_path / "labels.parquet")})
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


def test_the_default_configuration_names_the_keys_that_folds_depend_on() -> None:
    assert set(DRAWN_BY) <= set(FinetuneKeys().cv.model_dump())
