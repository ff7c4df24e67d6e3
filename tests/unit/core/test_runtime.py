"""Plain PyTorch where it is asked for: whatever the command, nothing of the machine is tuned."""

from __future__ import annotations

import types
from pathlib import Path
from types import ModuleType

import pytest
import torch
from harness import Store
from paths import ROOT

from moola_mlflow.cli import calling, main
from moola_mlflow.cli.commands import detect, finetune, sweep
from moola_mlflow.cli.entry_points import ENTRY_POINTS
from moola_mlflow.cli.parser import configurations_of
from moola_mlflow.core import RuntimeConfig, make_config, read_preset, runtime
from moola_mlflow.core.errors import UserError
from moola_mlflow.core.signals import Interrupts

CONFIGS = ROOT / "configs"


@pytest.mark.parametrize(
    ("tune", "taken", "said"), [("on", True, "tuned"), ("on", False, "not glibc"), ("off", True, "as it comes")]
)
def test_what_became_of_the_allocator_is_said(
    monkeypatch: pytest.MonkeyPatch, tune: str, taken: bool, said: str
) -> None:
    asked = []
    monkeypatch.setattr(runtime, "tune_allocator", lambda: asked.append(1) or taken)
    assert runtime.configure_allocator(RuntimeConfig(tune=tune)) == said  # type: ignore[arg-type]
    assert bool(asked) == (tune == "on")


def test_plain_pytorch_has_all_cores_and_whole_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    try:
        assert runtime.configure_threads(RuntimeConfig(tune="off")) == 2
        assert runtime.configure_threads(RuntimeConfig(tune="off", threads=1)) == 1
        assert runtime.configure_threads(RuntimeConfig()) == 1
    finally:
        torch.set_num_threads(1)
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    assert runtime.pick_precision("auto", torch.device("cpu"), tuned=False) == "fp32"
    assert runtime.pick_precision("auto", torch.device("cpu")) == "bf16"


def test_bf16_is_refused_on_a_processor_that_cannot_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_cpu_flags", lambda: "flags: sse2 avx2")
    with pytest.raises(UserError, match=r"needs a processor with AVX-512; allowed on this one: auto, fp32"):
        runtime.pick_precision("bf16", torch.device("cpu"))
    assert runtime.pick_precision("bf16", torch.device("cuda")) == "bf16"
    for flags in ("flags: avx2 avx512bw", ""):  # no flags: no x86 processor, or another system
        monkeypatch.setattr(runtime, "_cpu_flags", lambda flags=flags: flags)
        assert runtime.pick_precision("bf16", torch.device("cpu")) == "bf16"


@pytest.mark.parametrize(
    ("command", "preset", "wrong"),
    [
        (finetune, "finetune.yaml", {"labels.path": "no.parquet"}),
        (sweep, "sweep.yaml", {"bars.path": "no.parquet"}),
        (detect, "smoke.yaml", {"detect.detector": "models:/none/1"}),
    ],
)
def test_no_command_tunes_the_allocator_where_that_is_off(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, command: ModuleType, preset: str, wrong: dict[str, str]
) -> None:
    monkeypatch.setattr(runtime, "tune_allocator", lambda: pytest.fail("it was tuned"))
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: True)
    store = Store(workdir)
    (keys, *_) = configurations_of(command.__name__.rpartition(".")[2])
    config = make_config(keys, read_preset(CONFIGS / preset), {**wrong, "runtime.tune": "off"})
    with pytest.raises(UserError):
        command.run(config, "plain", Interrupts())
    (run,) = store.refused()
    assert run.data.tags.get("moola.precision", "fp32") == "fp32"
    assert run.data.tags.get("moola.allocator", "as it comes") == "as it comes"


@pytest.mark.parametrize("tune", ["on", "off"])
def test_plain_pytorch_waits_as_openmp_does(monkeypatch: pytest.MonkeyPatch, tune: str) -> None:
    environment: dict[str, str] = {}
    monkeypatch.setattr(runtime.os, "environ", environment)
    command = types.SimpleNamespace(run=lambda config, preset, interrupts: None)
    monkeypatch.setattr(calling.importlib, "import_module", lambda name: command)
    assert main.run_cli(["detect", "--runtime.tune", tune]) == 0
    assert ("OMP_WAIT_POLICY" in environment) == (tune == "on")
    assert "CUBLAS_WORKSPACE_CONFIG" in environment


@pytest.mark.parametrize("name", [name for name in ENTRY_POINTS if name != "pretrain"])
def test_a_command_that_shares_nothing_out_is_refused_to_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setattr(main, "FIRST_PROCESS_S", 0)
    monkeypatch.setattr(calling.importlib, "import_module", lambda name: pytest.fail("it was begun"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")  # the first one records it too
    assert main.run_cli([name]) == 2
    said = capsys.readouterr().err
    assert f"'{name}' was started as 2 processes (WORLD_SIZE=2)" in said
    assert f"allowed as several: pretrain; start moola {name} once, without torchrun" in said


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_one_device_is_refused_to_several_processes_with_the_cure(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=rf"runtime\.device='{device}'.*2 processes.*allowed: .*give --device cuda"):
        runtime.pick_device(device)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert runtime.pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_a_gpu_is_looked_for_by_the_files_of_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    drivers: set[str] = set()
    monkeypatch.setattr(runtime.sys, "platform", "linux")
    monkeypatch.setattr(Path, "exists", lambda path: str(path) in drivers)
    assert not runtime.may_have_gpu()
    drivers.add("/dev/nvidiactl")
    assert runtime.may_have_gpu()
    drivers.clear()
    monkeypatch.setattr(runtime.sys, "platform", "darwin")  # torch alone knows whether there is MPS
    assert runtime.may_have_gpu()


def test_a_process_without_a_gpu_of_its_own_is_told_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: None)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert runtime.pick_device("cuda") == torch.device("cuda", 3)
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(UserError, match=r"process 4 of this machine.*torch sees 4.*--nproc-per-node"):
        runtime.pick_device("cuda")
