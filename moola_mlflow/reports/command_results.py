"""What a command gives to the caller of its Python function: figures, files, the run, and a chart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from moola_mlflow.evaluation import BarsEvidence, EventEvidence, Evidence
    from moola_mlflow.labels import EventLabels
    from moola_mlflow.reports.plots.interactive import WindowPicture
    from moola_mlflow.tracking import Run

MOST_WINDOWS = 200
"""Windows that a chart of labels shows."""


@dataclass(frozen=True, kw_only=True)
class CommandResult:
    """What every command gives. A notebook shows its note."""

    run_id: str | None
    """MLflow's id of the run; None if the call was not tracked."""
    folder: Path
    """Where the files are."""
    metrics: Mapping[str, float] = field(repr=False)
    """The last value of every metric of the run."""
    paths: Mapping[str, Path] = field(repr=False)
    """Files and folders on this machine, by the names of the run's artifacts."""
    note: str = field(repr=False)
    """The result in Markdown, as the run's page shows it."""

    def _repr_markdown_(self) -> str:
        return self.note


@dataclass(frozen=True, kw_only=True)
class PretrainResult(CommandResult):
    """A trained encoder."""

    encoder: str
    """The registered version, or the encoder's folder."""
    history: pd.DataFrame = field(repr=False)
    """The metrics of each epoch, one row an epoch."""
    best_epoch: int
    """The epoch, from 0, whose weights the encoder has."""

    def plot(self) -> go.Figure:
        """Return losses, Huber, skill and learning rate by epoch."""
        from moola_mlflow.reports.plots.interactive import curves_chart

        return curves_chart(self.history.to_dict("records"), self.best_epoch)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class FinetuneResult(CommandResult):
    """A fitted detector, with its evidence."""

    detector: str
    """The registered version, or the detector's folder."""
    headline: str
    """What the evidence says in one sentence."""
    evidence: Evidence | EventEvidence = field(repr=False)

    @property
    def score(self) -> str:
        """Name of the score by which methods are compared: mAP, or Joint@3 of a span detector."""
        from moola_mlflow.evaluation import EventEvidence  # needs torch, and other results do not

        return "map" if isinstance(self.evidence, EventEvidence) else "joint_success_at_3"

    def methods(self) -> pd.DataFrame:
        """Return the scores of the detector and of its baselines: one row a method, columns score, lo and hi."""
        table = {name: row[self.score] for name, row in self.evidence.table.items()}
        rows = [{"method": name, self.score: one.mean, "lo": one.lo, "hi": one.hi} for name, one in table.items()]
        return pd.DataFrame(rows).set_index("method")

    def plot(self) -> go.Figure:
        """Return the score of the detector and of its baselines, with 95 % intervals."""
        from moola_mlflow.evaluation import Interval  # needs torch, and other results do not
        from moola_mlflow.reports.plots.interactive import scores_chart

        rows = {str(row[0]): Interval(*row[1:]) for row in self.methods().itertuples()}
        return scores_chart(rows, self.headline, f"{self.score}, out of fold")


@dataclass(frozen=True, kw_only=True)
class LabelResult(CommandResult):
    """Windows that a rule labelled."""

    labels: EventLabels = field(repr=False)
    path: Path
    """The labels file."""

    def plot(self) -> go.Figure:
        """Return candlesticks of the labelled windows, one after another."""
        from moola_mlflow.reports.plots.interactive import windows_chart
        from moola_mlflow.reports.window_pictures import labelled_picture

        labels = self.labels
        some = range(min(len(labels), MOST_WINDOWS))
        return windows_chart([labelled_picture(labels, i, str(labels.window_id[i])) for i in some])


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(CommandResult):
    """The scores of a detector on bars."""

    headline: str
    """What the evidence says in one sentence."""
    table: pd.DataFrame = field(repr=False)
    """Every event, found or missed."""
    evidence: BarsEvidence = field(repr=False)

    def plot(self) -> go.Figure:
        """Return precision against recall as the threshold of the score falls."""
        from moola_mlflow.reports.plots.interactive import precision_recall_chart

        scored = {"detector": self.evidence.scored}
        return precision_recall_chart(scored, self.evidence.found.threshold, "events of a scan")


@dataclass(frozen=True, kw_only=True)
class DetectResult(CommandResult):
    """What a scan found."""

    table: pd.DataFrame = field(repr=False)
    """One row for each hit or event, in order of time."""
    pictures: tuple[WindowPicture, ...] = field(repr=False)
    """The windows of the best ones."""

    def plot(self) -> go.Figure:
        """Return candlesticks around the best ones, one after another."""
        from moola_mlflow.reports.plots.interactive import windows_chart

        return windows_chart(self.pictures)


def result_fields(active: Run) -> dict[str, Any]:
    """Return what every outcome holds, from the run at its end."""
    run_id = active.id if active.tracked else None
    metrics, paths = active.last_metrics, active.paths()
    return {"run_id": run_id, "folder": active.folder, "metrics": metrics, "paths": paths, "note": active.noted}
