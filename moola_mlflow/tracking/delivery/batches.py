"""Events in groups that fit into one request to MLflow, and requests within MLflow's limits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from mlflow.entities import Metric, Param, RunTag

from moola_mlflow.tracking.delivery.journal import Event

MAX_PARAM = 6000
"""MLflow cuts a longer parameter."""
MAX_BATCH, MAX_METRICS = 100, 1000
"""Most parameters, tags and metrics of one request."""
BATCHED = ("params", "tags", "metrics")
"""Kinds of events that share requests."""
Item = Metric | RunTag | Param


def group_events(events: Iterable[Event]) -> Iterator[list[Event]]:
    """Yield neighbours that fit into one request together. An event of any other kind forms its own group."""
    group: list[Event] = []
    counts = dict.fromkeys(BATCHED, 0)
    limits = {"params": MAX_BATCH, "tags": MAX_BATCH, "metrics": MAX_METRICS - 2 * MAX_BATCH}
    for event in events:
        if event.kind not in BATCHED:
            if group:
                yield group
            group, counts = [], dict.fromkeys(BATCHED, 0)
            yield [event]
            continue
        num = len(event.record[event.kind])
        if group and counts[event.kind] + num > limits[event.kind]:
            yield group
            group, counts = [], dict.fromkeys(BATCHED, 0)
        group.append(event)
        counts[event.kind] += num
    if group:
        yield group


def split_request(points: list[Metric], tags: list[RunTag], params: list[Param]) -> Iterator[list[Item]]:
    """Yield the parts of a request that MLflow takes."""
    most = MAX_METRICS - 2 * MAX_BATCH if tags or params else MAX_METRICS
    requests = max(-(-len(points) // most), -(-len(tags) // MAX_BATCH), -(-len(params) // MAX_BATCH))
    for i in range(requests):
        few = slice(i * MAX_BATCH, (i + 1) * MAX_BATCH)
        yield [*points[i * most : (i + 1) * most], *tags[few], *params[few]]


def metric_points(metrics: Mapping[str, float | None], at_ms: int, step: int) -> list[Metric]:
    """Return MLflow's points for metrics. A figure that was not finite is None in the journal and left out."""
    return [Metric(key, float(value), at_ms, step) for key, value in metrics.items() if value is not None]


def finite_points(metrics: Mapping[str, float | None], at_ms: int, step: int) -> list[Metric]:
    """Return MLflow's points for the metrics that are finite."""
    return [point for point in metric_points(metrics, at_ms, step) if math.isfinite(point.value)]


def cut_params(params: Mapping[str, str]) -> dict[str, str]:
    """Return parameters cut to the length that MLflow keeps."""
    return {key: value[:MAX_PARAM] for key, value in params.items()}
