"""The way from the command to the encoder: few frames in a traceback, and each checkpoint read once."""

from __future__ import annotations

import re
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from empty_store import copy_empty_store
from harness import QUICK, SMOKE
from paths import ROOT
from torch import nn

from moola_mlflow.cli.commands import pretrain
from moola_mlflow.core import PretrainKeys, make_config, read_preset
from moola_mlflow.core.signals import Interrupted, Interrupts
from moola_mlflow.models.files.checkpoint import BEST_CHECKPOINT

PACKAGE = ROOT / "moola_mlflow"
MAX_FRAMES = 10
STEPS = 8
"""Of two epochs of six steps each: the first run ends in the second epoch."""


class AfterSteps(Interrupts):
    """A signal that comes when it was asked for so many times."""

    asked = 0

    def reason(self) -> str | None:
        self.asked += 1
        if self.asked == STEPS:
            self.first = self._pending = signal.SIGTERM
        return super().reason()


@dataclass
class Seen:
    """What two runs of the command did: one was interrupted, the other went on from there."""

    stacks: list[list[str]] = field(default_factory=list)
    """Functions of the package above each forward pass of a training step, the command first."""
    read: list[str] = field(default_factory=list)
    """Checkpoints that the second run read, in order."""

    def look(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, nn.LSTM) and module.training and torch.is_grad_enabled():
            frames = [frame for frame in traceback.extract_stack() if Path(frame.filename).is_relative_to(PACKAGE)]
            self.stacks.append([f"{Path(frame.filename).stem}.{frame.name}" for frame in frames])


def train(interrupts: Interrupts, **overrides: object) -> None:
    given = {**QUICK, "registry.name": "none", "runtime.device": "cpu", "runtime.shards": 1, **overrides}
    pretrain.run(make_config(PretrainKeys, read_preset(SMOKE), given), "smoke", interrupts)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    found, folder = Seen(), tmp_path_factory.mktemp("trained")
    copy_empty_store(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.delenv("MLFLOW_RUN_ID", raising=False)
        mlflow.set_tracking_uri(None)
        hook = nn.modules.module.register_module_forward_hook(found.look)
        with pytest.raises(Interrupted):
            train(AfterSteps())
        hook.remove()
        load = torch.load

        def noted(path: Path, **named: Any) -> Any:
            found.read.append(path.name)
            return load(path, **named)

        patch.setattr(torch, "load", noted)
        train(Interrupts(), **{"tracking.resume": "auto"})
        (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
        assert run.info.status == "FINISHED"
        yield found
    mlflow.set_tracking_uri(None)


def test_a_forward_pass_is_at_most_ten_frames_below_the_command(seen: Seen) -> None:
    assert len(seen.stacks) >= STEPS
    stack = seen.stacks[-1]
    assert all(one == stack for one in seen.stacks)
    assert (stack[0], stack[-1]) == ("pretrain.run", "bilstm.encode")
    assert len(stack) <= MAX_FRAMES, " > ".join(stack)


def test_a_resumed_training_reads_the_latest_checkpoint_once_and_at_its_end_the_best(seen: Seen) -> None:
    assert len(seen.read) == 2
    assert re.fullmatch(r"\d{5}-[0-9a-f]{8}\.pt", seen.read[0])  # the state that the manifest names as the latest
    assert seen.read[1] == BEST_CHECKPOINT
