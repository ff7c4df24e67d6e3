"""Plain PyTorch where it is asked for: whatever the command, nothing of the machine is tuned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moola_mlflow import runtime
from moola_mlflow.commands import detect, finetune, sweep
from moola_mlflow.config import Config, RuntimeConfig, read_preset, resolve
from moola_mlflow.distributed import in_words
from moola_mlflow.errors import UserError
from moola_mlflow.signals import Interrupts
from tests.e2e.harness import Store

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@pytest.mark.parametrize(
    ("tune", "taken", "said"), [("on", True, "tuned"), ("on", False, "not glibc"), ("off", True, "as it comes")]
)
def test_what_became_of_the_allocator_is_said(
    monkeypatch: pytest.MonkeyPatch, tune: str, taken: bool, said: str
) -> None:
    asked = []
    monkeypatch.setattr(runtime, "tune_allocator", lambda: asked.append(1) or taken)
    assert runtime.allocate(RuntimeConfig(tune=tune)) == said  # type: ignore[arg-type]
    assert bool(asked) == (tune == "on")


def test_plain_pytorch_has_all_cores_and_whole_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    try:
        assert runtime.use_threads(RuntimeConfig(tune="off")) == 2
        assert runtime.use_threads(RuntimeConfig(tune="off", threads=1)) == 1
        assert runtime.use_threads(RuntimeConfig()) == 1
    finally:
        torch.set_num_threads(1)
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    assert runtime.pick_precision("auto", torch.device("cpu"), tuned=False) == "fp32"
    assert runtime.pick_precision("auto", torch.device("cpu")) == "bf16"


@pytest.mark.parametrize(
    ("command", "preset", "wrong"),
    [
        (finetune.run, "finetune.yaml", {"labels.path": "no.parquet"}),
        (sweep.run, "sweep.yaml", {"bars.path": "no.parquet"}),
        (detect.run, "smoke.yaml", {"detect.detector": "models:/none/1"}),
    ],
)
def test_no_command_tunes_the_allocator_where_that_is_off(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., None], preset: str, wrong: dict[str, str]
) -> None:
    monkeypatch.setattr(runtime, "tune_allocator", lambda: pytest.fail("it was tuned"))
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    store = Store(workdir)
    config: Config = resolve(read_preset(CONFIGS / preset), {**wrong, "runtime.tune": "off", "registry.name": "none"})
    with pytest.raises(UserError):
        command(config, "plain", Interrupts())
    (run,) = store.runs()
    assert run.data.tags.get("moola.precision", "fp32") == "fp32"
    assert run.data.tags.get("moola.allocator", "as it comes") == "as it comes"


def test_how_a_batch_is_shared_out_is_said_in_words() -> None:
    assert in_words(1, 2, 1) == "2 parts of one thread"
    assert in_words(1, 1, 4) == "one part of 4 threads"
    assert in_words(2, 1, 1) == "2 processes, each with one part of one thread"
