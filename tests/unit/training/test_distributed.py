"""Processes that train together: what they exchange, what they must agree on, and one process alone."""

from __future__ import annotations

import multiprocessing as mp
import os
import socket
from typing import Any

import pytest
import torch

from moola_mlflow.core.errors import UserError
from moola_mlflow.training.distributed import World, describe_processes, differences, join_world

STATE = {"epoch": 3, "weights": torch.arange(5.0)}


def test_how_a_batch_is_shared_out_is_said_in_words() -> None:
    assert describe_processes(1, 2, 1) == "2 parts of one thread"
    assert describe_processes(1, 1, 4) == "one part of 4 threads"
    assert describe_processes(2, 1, 1) == "2 processes, each with one part of one thread"


def test_every_item_on_which_processes_differ_is_named_with_its_values() -> None:
    alike = {"precision": "bf16", "trainer.seed": "17"}
    assert differences([alike, dict(alike), dict(alike)]) == []
    assert differences([alike, {**alike, "precision": "fp32"}, alike, {"precision": "fp32"}]) == [
        "precision is bf16 in process 0, 2 and fp32 in process 1, 3",
        "trainer.seed is 17 in process 0, 1, 2 and not there in process 3",
    ]
    World().compare(alike)  # alone, there is nobody to differ from


def test_a_process_alone_is_its_own_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = join_world(torch.device("cpu"), "r")
    assert (world.rank, world.size, world.run_id) == (0, 1, "r")
    tensor = torch.ones(2)
    assert world.sum(tensor) is tensor
    assert (world.agree(None), world.agree("SIGTERM")) == (None, "SIGTERM")
    assert world.share_state(STATE) is STATE
    world.share([tensor])
    world.leave()
    assert tensor.tolist() == [1.0, 1.0]


def exchange(rank: int, port: int, answers: Any) -> None:
    """Be one of two processes: exchange everything that there is to exchange, and say what came."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    world = join_world(torch.device("cpu"), "r" if rank == 0 else "")
    mine = torch.full((2,), 1.0 + rank)
    found: dict[str, Any] = {"run": world.run_id, "sum": world.sum(mine.clone()).tolist()}
    found["agreed"] = [world.agree(None), world.agree("SIGTERM" if rank else None)]
    world.share([mine])
    found["shared"] = mine.tolist()
    state = world.share_state(STATE if rank == 0 else None)
    found["state"] = state and {"epoch": state["epoch"], "weights": state["weights"].tolist()}
    found["no state"] = world.share_state(None)
    try:
        world.compare({"trainer.seed": 17 + rank, "trainer.epochs": 3})
    except UserError as e:
        found["refused"] = str(e)
    world.leave()
    found["left"] = (world.rank, world.size)
    answers.put((rank, found))


@pytest.mark.slow
def test_two_processes_sum_agree_share_and_compare() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=exchange, args=(rank, port, answers)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(answers.get(timeout=240) for _ in processes)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    first, second = found[0], found[1]
    assert first["run"] == second["run"] == "r"
    assert first["sum"] == second["sum"] == [3.0, 3.0]
    assert first["agreed"] == [None, "another process was asked to stop"]
    assert second["agreed"] == [None, "SIGTERM"]
    assert first["shared"] == second["shared"] == [1.0, 1.0]
    assert first["state"] == second["state"] == {"epoch": 3, "weights": [0.0, 1.0, 2.0, 3.0, 4.0]}
    assert first["no state"] is second["no state"] is None
    assert first["refused"] == second["refused"]
    assert "trainer.seed is 17 in process 0 and 18 in process 1; these must be equal. Start every" in first["refused"]
    assert "trainer.epochs" not in first["refused"]
    assert first["left"] == second["left"] == (0, 1)
