"""The scoring server: the same numbers as the library, and 400 with the reason for input that is no window."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from harness import Store
from mlflow.pyfunc import scoring_server
from small_models import small_detector, small_encoder, windows

from moola_mlflow import embed, load_detector, load_encoder
from moola_mlflow.models.files.detector import read_detector_card, save_detector
from moola_mlflow.models.files.encoder import save_encoder
from moola_mlflow.tracking.registry import models

Answer = tuple[int, dict[str, Any]]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Any], Answer]:
    """Ask the app that `mlflow models serve` runs, without a socket."""
    folder = tmp_path_factory.mktemp("served")
    mlflow.set_tracking_uri(Store(folder).uri)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("served", folder.as_uri()))
    encoder, detector = small_encoder(), small_detector("both", 2)
    save_encoder(encoder, encoder.card, folder / "encoder")
    save_detector(detector, folder / "detector")
    with mlflow.start_run():
        models.log_encoder("encoder", folder / "encoder", encoder.card, {})
        card = read_detector_card(folder / "detector" / "detector.json")
        models.log_detector("detector", folder / "detector", card, {})
    apps = {
        kind: scoring_server.init(mlflow.pyfunc.load_model(f"models:/{kind}/1")) for kind in ("encoder", "detector")
    }

    class Request:
        headers = {"content-type": "application/json"}  # noqa: RUF012

        def __init__(self, body: bytes) -> None:
            self.content = body

        async def body(self) -> bytes:
            return self.content

    def answer(kind: str, payload: Any) -> Answer:
        endpoint = next(route.endpoint for route in apps[kind].routes if route.path == "/invocations")
        response = asyncio.run(endpoint(Request(json.dumps(payload).encode())))
        return response.status_code, json.loads(response.body)

    return answer


@pytest.mark.parametrize("key", ["inputs", "instances"])
def test_the_detector_answers_with_the_librarys_numbers(ask: Callable[[str, Any], Answer], key: str) -> None:
    status, answer = ask("detector", {key: windows().tolist()})
    found = load_detector("models:/detector/1").predict(windows())
    assert status == 200
    rows = answer["predictions"]
    assert list(rows[0]) == ["label", "p_consolidation", "p_retracement", "expansion_start", "expansion_end"]
    assert [row["label"] for row in rows] == found.label.tolist()
    np.testing.assert_allclose([row["p_retracement"] for row in rows], found.probability[:, 1], atol=1e-5)
    spans = [(row["expansion_start"], row["expansion_end"]) for row in rows]
    assert spans == list(zip(found.start.tolist(), found.end.tolist(), strict=True))


def test_the_encoder_answers_with_the_librarys_numbers(ask: Callable[[str, Any], Answer]) -> None:
    status, answer = ask("encoder", {"inputs": windows().tolist(), "params": {"pool": "last"}})
    assert status == 200
    expected = embed(load_encoder("models:/encoder/1"), windows(), "last").numpy()
    np.testing.assert_allclose(answer["predictions"], expected, atol=1e-5)


def without_a_number() -> list[Any]:
    ohlc = windows()
    ohlc[1, 4, 0] = math.nan
    return ohlc.tolist()


def upside_down() -> list[Any]:
    ohlc = windows()
    ohlc[0, 3, 1] = 1.0
    return ohlc.tolist()


BAD: dict[str, tuple[Any, str]] = {
    "a NaN": ({"inputs": without_a_number()}, "window 1, step 4 is not a bar"),
    "a high under the low": ({"inputs": upside_down()}, "window 0, step 3 is not a bar: open, high, low, close ="),
    "too short": ({"inputs": windows()[:, 1:].tolist()}, "(5, 104, 4)"),
    "ragged": ({"inputs": [[[1, 2], [3]]]}, "inhomogeneous"),
    "text": ({"inputs": "x"}, "x"),
    "no input": ({}, "The input must be a JSON dictionary"),
}


@pytest.mark.parametrize("kind", ["encoder", "detector"])
@pytest.mark.parametrize("case", BAD)
def test_malformed_windows_get_400_and_the_reason(ask: Callable[[str, Any], Answer], kind: str, case: str) -> None:
    payload, reason = BAD[case]
    status, answer = ask(kind, payload)
    assert status == 400
    assert reason in answer["message"]


def test_an_unknown_pool_gets_400_and_what_is_allowed(ask: Callable[[str, Any], Answer]) -> None:
    status, answer = ask("encoder", {"inputs": windows().tolist(), "params": {"pool": "max"}})
    assert status == 400
    assert "pool='max'; allowed: mean, last, none" in answer["message"]


@pytest.mark.parametrize("kind", ["encoder", "detector"])
def test_the_requirements_are_exact_and_the_signature_takes_any_number_of_windows(
    ask: Callable[[str, Any], Answer], kind: str, tmp_path: Path
) -> None:
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{kind}/1", dst_path=str(tmp_path)))
    lines = (folder / "requirements.txt").read_text().split()
    assert all("==" in line for line in lines)
    for package in ("pandas==", "pyarrow=="):
        assert any(line.startswith(package) for line in lines) == (kind == "detector")
    signature = mlflow.models.get_model_info(f"models:/{kind}/1").signature
    if kind == "encoder":
        assert signature.inputs.inputs[0].shape == (-1, 105, 4)
    else:  # windows or a table of bars, which one schema cannot say
        assert signature.inputs is None
        assert [spec.name for spec in signature.params.params] == [
            "stride", "min_probability", "min_span_score", "margin", "timezone", "instrument"
        ]  # fmt: skip
        names = ["label", "p_consolidation", "p_retracement", "expansion_start", "expansion_end"]
        assert signature.outputs.input_names() == names
