"""Events in requests that MLflow takes: in their order, none too large, none left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import Metric, Param, RunTag

from moola_mlflow.tracking.delivery.batches import (
    MAX_BATCH,
    MAX_METRICS,
    finite_points,
    group_events,
    metric_points,
    split_request,
)
from moola_mlflow.tracking.delivery.journal import Event

KINDS = st.sampled_from(["metrics", "params", "tags", "inputs", "artifacts"])


@given(st.lists(st.tuples(KINDS, st.integers(1, 120)), max_size=40))
def test_neighbours_go_together_in_their_order_within_what_a_request_may_hold(kinds: list[tuple[str, int]]) -> None:
    events = [
        Event({"kind": kind, kind: dict.fromkeys(map(str, range(num)), 1.0)}, i, i + 1)
        for i, (kind, num) in enumerate(kinds)
    ]
    made = list(group_events(events))
    assert [event for group in made for event in group] == events
    for group in made:
        assert len(group) == 1 or all(event.kind in ("metrics", "params", "tags") for event in group)
        for kind, most in (("params", MAX_BATCH), ("tags", MAX_BATCH), ("metrics", MAX_METRICS)):
            sizes = [len(event.record[kind]) for event in group if event.kind == kind]
            assert sum(sizes) <= most or len(sizes) == 1  # which is cut when it is sent


@given(st.integers(0, 2500), st.integers(0, 250), st.integers(0, 250))
def test_a_request_is_split_into_parts_that_mlflow_takes_and_nothing_is_lost(
    num_points: int, num_tags: int, num_params: int
) -> None:
    points = [Metric(f"m{i}", 1.0, 0, 0) for i in range(num_points)]
    tags = [RunTag(f"t{i}", "") for i in range(num_tags)]
    params = [Param(f"p{i}", "") for i in range(num_params)]
    parts = list(split_request(points, tags, params))
    for kind, given_ in ((Metric, points), (RunTag, tags), (Param, params)):
        assert [entry for part in parts for entry in part if isinstance(entry, kind)] == given_
    for part in parts:
        sizes = {kind: sum(isinstance(entry, kind) for entry in part) for kind in (Metric, RunTag, Param)}
        assert 0 < len(part) <= MAX_METRICS
        assert max(sizes[RunTag], sizes[Param]) <= MAX_BATCH


def test_a_figure_that_was_not_finite_is_no_point_of_a_child_and_a_gap_of_a_run() -> None:
    metrics = {"a": 1.0, "none": None, "nan": float("nan"), "inf": float("inf")}
    assert [point.key for point in metric_points(metrics, 5, 3)] == ["a", "nan", "inf"]
    assert [(point.key, point.timestamp, point.step) for point in finite_points(metrics, 5, 3)] == [("a", 5, 3)]
