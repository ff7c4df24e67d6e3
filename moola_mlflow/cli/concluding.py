"""The end of a fine-tuning, for detectors of both kinds: register the detector, and say what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from moola_mlflow.core import GateError
from moola_mlflow.evaluation import all_gates_passed, gates_summary
from moola_mlflow.reports import FinetuneResult, result_fields, waiting_uri
from moola_mlflow.tracking import Artifacts, Run, Tags

if TYPE_CHECKING:  # pretrain concludes too, and would import every method of an event detector with them
    from moola_mlflow.evaluation import EventEvidence, Evidence, Gate


def register_detector(active: Run, name: str, tags: Mapping[str, str]) -> str:
    """Log the detector that lies in the run's folder, register it unless ``name`` is none, and return its URI."""
    folder = active.folder / Artifacts.DETECTOR
    active.artifact(folder, Artifacts.DETECTOR)
    if name == "none":
        return active.uri(Artifacts.DETECTOR)
    version = active.register("detector", name, folder, dict(tags))
    return f"models:/{name}/{version}" if version else waiting_uri(name, active.folder)


def local_model(active: Run, uri: str, artifact: str) -> str:
    """Return the registered version of a model, or the model's folder if nothing was registered."""
    return uri if uri.startswith("models:/") else str(active.folder / artifact)


def finetuned(active: Run, evidence: Evidence | EventEvidence, uri: str) -> FinetuneResult:
    """Return what a fine-tuning gives to its caller."""
    detector = local_model(active, uri, Artifacts.DETECTOR)
    return FinetuneResult(**result_fields(active), detector=detector, headline=evidence.headline(), evidence=evidence)


def conclude(
    active: Run, note: str, warnings: Sequence[str], lines: Sequence[str], gates: Sequence[Gate], mode: str, uri: str
) -> None:
    """Log note and warnings, and print them with the lines of the result.

    Raises: GateError for a missed gate if ``mode`` is strict.
    """
    if warnings:
        active.tags({Tags.WARNINGS: " ".join(warnings)})
    active.note(note)
    for text in warnings:
        print(f"Warning: {text}", flush=True)
    print("\n".join([*lines, f"Detector: {uri}"]), flush=True)
    if mode == "strict" and not all_gates_passed(gates):
        raise GateError(f"gates {gates_summary(gates)}; everything is logged, the detector is {uri}")
