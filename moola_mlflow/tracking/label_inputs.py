"""Read the labels of a configuration: sample labels, files, a folder, a glob, or the file that a run logged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from moola_mlflow.bars import Bars
from moola_mlflow.core import FinetuneKeys, LabelsConfig, LabelsKeys, TrueLabelsConfig, UserError, printable
from moola_mlflow.labels import (
    EventLabels,
    LabelledSet,
    read_any_labels,
    read_event_labels,
    read_span_labels,
    sample_events,
    sample_labels,
)
from moola_mlflow.tracking.addresses import need_store
from moola_mlflow.tracking.artifact_places import no_local_artifacts
from moola_mlflow.tracking.names import Tags
from moola_mlflow.tracking.registry.models import quiet_download
from moola_mlflow.tracking.store import STORE_FAILURES, shown_uri

RUN = "runs:/"


def read_input_labels(config: FinetuneKeys | LabelsKeys) -> LabelledSet:
    """Return the windows with one event each that ``labels.path`` names."""
    options = config.labels
    if options.path == "sample" and options.rejects:
        return sample_events(config, options.n, options.seed).spans()
    if options.path == "sample":
        return sample_labels(config, options.n, options.seed)
    with local_labels(options) as path:
        return replace(read_span_labels(path, config.windows.length, options.duplicates), path=options.path)


def read_input_events(config: FinetuneKeys | LabelsKeys) -> EventLabels:
    """Return the windows looked at that ``labels.path`` names, and the events in each."""
    options = config.labels
    if options.path == "sample" and options.rejects:
        return sample_events(config, options.n, options.seed)
    if options.path == "sample":
        return EventLabels.of(sample_labels(config, options.n, options.seed))
    with local_labels(options) as path:
        return replace(read_event_labels(path, config.windows.length, options.duplicates), path=options.path)


def read_true_labels(options: TrueLabelsConfig, length: int) -> EventLabels:
    """Return the windows looked at that a section names, of ``length`` bars each."""
    with local_labels(options) as path:
        return replace(read_event_labels(path, length, options.duplicates), path=options.path)


def read_shown_labels(config: LabelsKeys, load_bars: Callable[[], Bars]) -> EventLabels:
    """Return the labels of any form that ``labels.path`` names. Bars are read only where a form points into them."""
    options = config.labels
    if options.path == "sample":
        return read_input_events(config)
    with local_labels(options) as path:
        return replace(read_any_labels(path, config, load_bars), path=options.path)


def find_annotate_run(client: mlflow.MlflowClient, labels_sha256: str) -> str:
    """Return the newest run of `annotate` that ended with labels of this hash, '' if there is none to be found."""
    asked = f"tags.`{Tags.LABELS_SHA256}` = '{labels_sha256}' and tags.`{Tags.STAGE}` = 'annotate'"
    try:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(experiments, asked, max_results=1, order_by=["attributes.start_time DESC"])
    except STORE_FAILURES:
        return ""
    return str(found[0].info.run_id) if found else ""


@contextmanager
def local_labels(options: LabelsConfig | TrueLabelsConfig) -> Iterator[str]:
    """Yield where the labels are on disk. Those of a run are fetched, and removed again.

    Raises: UserError if the run or its file cannot be found.
    """
    if not options.path.startswith(RUN):
        yield options.path
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield str(_fetched(options.path, Path(scratch)))


def _fetched(uri: str, scratch: Path) -> Path:
    need_store(f"labels.path='{uri}'")
    run_id, _, within = uri.removeprefix(RUN).partition("/")
    try:
        with no_local_artifacts():
            names = [file.path for file in mlflow.MlflowClient().list_artifacts(run_id) if not file.is_dir]
        files = [name for name in names if name.endswith((".parquet", ".pq"))]
        wanted = within or (files[0] if len(files) == 1 else "")
        if not wanted:
            there = ", ".join(files or names) or "nothing"
            raise UserError(
                f"labels.path='{uri}': the run holds {there}; name its labels file, {RUN}{run_id}/FILE.parquet"
            )
        with quiet_download(), no_local_artifacts():
            return Path(mlflow.artifacts.download_artifacts(f"{RUN}{run_id}/{wanted}", dst_path=str(scratch)))
    except (MlflowException, OSError) as e:
        raise UserError(
            f"labels.path='{uri}' cannot be fetched from '{shown_uri()}': {printable(str(e))}; give {RUN}ID of a run "
            "of label, or a file"
        ) from e
