"""An encoder on disk gives the same embeddings, and a broken folder says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import small_encoder, windows

from moola_mlflow.core import UserError
from moola_mlflow.models.embedding import embed
from moola_mlflow.models.files.encoder import load_from_path, read_encoder_card, save_encoder
from moola_mlflow.models.task_heads import TaskHeads


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    encoder = small_encoder()
    save_encoder(encoder, encoder.card, tmp_path / "encoder")
    return tmp_path / "encoder"


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "encoder.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


def test_a_saved_encoder_embeds_alike_in_evaluation_mode_and_is_trainable(folder: Path) -> None:
    loaded, encoder = load_from_path(folder), small_encoder()
    assert torch.equal(embed(loaded, windows()), embed(encoder, windows()))
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.card["features"] == encoder.card["features"]
    assert {path.name for path in folder.iterdir()} == {"encoder.json", "weights.safetensors"}


def test_task_heads_travel_with_their_encoder(folder: Path) -> None:
    encoder = small_encoder()
    size = encoder.output_size
    encoder.task_heads = TaskHeads(("rise", "fall"), torch.rand(2, 2, size), torch.rand(2, 3, 3 * size))
    save_encoder(encoder, encoder.card, folder)
    found = load_from_path(folder).task_heads
    assert found is not None
    assert found.names == ("rise", "fall")
    assert torch.equal(found.classes, encoder.task_heads.classes)


def test_task_heads_for_another_encoder_are_refused(folder: Path) -> None:
    TaskHeads(("rise", "fall"), torch.rand(2, 2, 6), torch.rand(2, 3, 18)).save(folder)
    with pytest.raises(UserError, match="task heads for encodings of 6 numbers, its own have 8"):
        load_from_path(folder)


def test_a_card_of_an_earlier_version_reads_features_and_knows_its_objective(folder: Path) -> None:
    def older(card: dict[str, Any]) -> None:
        del card["architecture"]["inputs"], card["window"]["stride"]
        card["objective"]["name"] = "path"

    edit(folder, older)
    card = load_from_path(folder).card
    assert (card["architecture"]["inputs"], card["objective"]["name"]) == ("features", "price_path")
    assert "stride" not in card["window"]


def drop(*names: str) -> Callable[[dict[str, Any]], None]:
    def change(card: dict[str, Any]) -> None:
        for name in names[:-1]:
            card = card[name]
        del card[names[-1]]

    return change


def put(value: Any, *names: str) -> Callable[[dict[str, Any]], None]:
    def change(card: dict[str, Any]) -> None:
        for name in names[:-1]:
            card = card[name]
        card[names[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("features"), "features"),
        (drop("window", "length"), "length"),
        (drop("architecture", "output_size"), "output_size"),
        (put("relativity10", "features", "set"), "make 10 inputs, the network reads 11"),
        (put("nowhere", "features", "set"), "nowhere"),
        (put([], "features", "hybrid"), "not a readable encoder folder"),
        (put(0, "window", "length"), "length"),
        (put(7, "run_id"), "run_id is a int"),
        (put([], "objective"), "objective is a list"),
        (put(7, "objective", "name"), "name is a int"),
        (put("2024-01-01", "trained_from"), "trained_until"),
        (lambda card: card.update(trained_from="soon", trained_until="later"), "soon"),
        (put(5, "architecture", "hidden"), "does not fit its own description"),
        (put("nothing", "architecture", "name"), "nothing"),
        (put(10**7, "architecture", "hidden"), "does not fit its own description|less than or equal"),
    ],
)
def test_a_card_that_does_not_fit_is_refused_with_the_reason(
    folder: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    edit(folder, change)
    with pytest.raises(UserError, match=words):
        load_from_path(folder)


@pytest.mark.parametrize("name", ["encoder.json", "weights.safetensors"])
@pytest.mark.parametrize(("content", "words"), [(None, "it lacks "), (b"", "not a readable"), (b"{", "not a readable")])
def test_a_file_that_is_missing_or_damaged_is_named(folder: Path, name: str, content: bytes | None, words: str) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=words + (name if content is None else "")):
        load_from_path(folder)


def test_a_tensor_too_few_or_of_another_shape_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    name = next(iter(tensors))
    for changed in ({k: v for k, v in tensors.items() if k != name}, {**tensors, name: torch.zeros(3)}):
        save_file(changed, folder / "weights.safetensors")
        with pytest.raises(UserError, match="does not fit its own description"):
            load_from_path(folder)


def test_a_card_is_read_without_its_weights(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    assert read_encoder_card(folder / "encoder.json")["window"]["length"] == 105


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"config": {}, "model_state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt"):
        load_from_path(tmp_path / "other.pt")
