"""From a configuration to a trainer: the order of the steps, and what is refused before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_trainings import SMALL

from moola_mlflow.bars import Bars
from moola_mlflow.core import PretrainKeys, TrainingError, UserError, make_config
from moola_mlflow.training.distributed import World
from moola_mlflow.training.setup import (
    PrepareObserver,
    TrainingData,
    batch_source,
    build_model,
    build_trainer,
    check_alike,
    check_leak,
    check_names,
    cut_and_split,
    hybrid,
    prepare,
)
from moola_mlflow.windows import BatchSource, Split, Windows

CPU = torch.device("cpu")


def configured(**keys: object) -> PretrainKeys:
    return make_config(PretrainKeys, {}, {**SMALL, "bars.sample_bars": 12_000, **keys})


class Watching(PrepareObserver):
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def bars_read(self, bars: Bars) -> None:
        self.seen.append(f"{len(bars)} bars")

    def windows_split(self, windows: Windows, split: Split) -> None:
        self.seen.append(f"{len(split.train) + len(split.val) + len(split.test) + split.dropped} windows")

    def flip_rate(self, source: BatchSource) -> float:
        self.seen.append("features")
        return 0.25


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return prepare(configured(), CPU)


def test_an_observer_is_told_each_step_in_order_and_its_flip_rate_is_taken() -> None:
    watching = Watching()
    made = prepare(configured(), CPU, watching)
    assert watching.seen == ["12000 bars", f"{len(made.source.windows)} windows", "features"]
    assert made.quality["swing_flip_rate"] == 0.25


def test_the_scaling_is_that_of_the_training_windows_alone(data: TrainingData) -> None:
    features = torch.as_tensor(data.source.features(data.split.train)[:, data.source.warmup :]).double()
    torch.testing.assert_close(data.mean.double(), features.mean((0, 1)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(data.std.double(), features.std((0, 1)), rtol=1e-2, atol=1e-3)
    model = build_model(configured(), data.source, data.mean, data.std)
    assert torch.equal(model.encoder.mean, data.mean)


def test_a_model_is_drawn_from_its_seed_alone(data: TrainingData) -> None:
    torch.manual_seed(1)
    one = build_model(configured(), data.source, data.mean, data.std).state_dict()
    torch.manual_seed(2)
    again = build_model(configured(), data.source, data.mean, data.std).state_dict()
    other = build_model(configured(**{"trainer.seed": 99}), data.source, data.mean, data.std).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"encoder.name": "bilstn"}, "bilstm"),
        ({"objective.name": "maskd"}, "masked"),
        ({"features.set": "relativity99"}, "relativity99"),
    ],
)
def test_an_unknown_name_is_refused_before_any_bar_is_read(keys: dict[str, object], words: str) -> None:
    config = configured(**keys, **{"bars.path": "no/such.csv"})
    with pytest.raises(UserError, match=words):
        check_names(config)


def test_bars_from_which_no_part_of_the_split_gets_a_window_are_refused() -> None:
    watching = Watching()
    with pytest.raises(UserError, match="split"):
        prepare(configured(**{"bars.sample_bars": 300}), CPU, watching)
    assert watching.seen == ["300 bars"]  # no feature was computed


def test_every_window_is_in_one_part_or_dropped(data: TrainingData) -> None:
    windows, split = cut_and_split(data.bars, configured())
    parts = [set(part.tolist()) for part in (split.train, split.val, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(windows) - split.dropped


def test_the_zigzag_and_the_inputs_are_those_of_the_configuration(data: TrainingData) -> None:
    config = configured(**{"features.hybrid_lookback": 5, "features.hybrid_same_bar": True, "encoder.inputs": "both"})
    variant = hybrid(config.features)
    assert (variant.lookback, variant.same_bar) == (5, True)
    source = batch_source(data.source.windows, config, CPU)
    assert len(source.input_names) > len(data.source.input_names) == 11


def test_without_a_checkpointer_a_training_writes_nothing(
    data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = build_trainer(configured(**{"trainer.epochs": 1}), data, "fp32")
    trainer.evaluation.fit_baselines()
    trainer.fit()
    assert list(tmp_path.rglob("*")) == []


def test_a_leak_is_logged_and_refused_unless_the_objective_hides_nothing(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[float] = []
    trainer = build_trainer(configured(), data, "fp32")
    assert check_leak(trainer, lambda metrics: logged.extend(metrics.values())) == 0
    monkeypatch.setattr(trainer.evaluation, "leak", lambda: 0.5)
    with pytest.raises(TrainingError, match=r"is 0\.5, allowed 0"):
        check_leak(trainer, lambda metrics: logged.extend(metrics.values()))
    assert logged == [0, 0.5]
    copying = build_trainer(configured(**{"objective.hide_masked": False}), data, "fp32")
    assert (check_leak(copying) or 0) > 0


def test_an_objective_without_masks_has_no_leak_to_check(data: TrainingData) -> None:
    assert check_leak(build_trainer(configured(**{"objective.name": "price_path"}), data, "fp32")) is None


def test_processes_compare_what_they_train_on_but_not_where_it_lies(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[dict[str, object]] = []
    monkeypatch.setattr(World, "compare", lambda self, values: compared.append(dict(values)))
    for path in ("a.csv", "b.csv"):
        config = configured(**{"bars.path": path})
        check_alike(build_trainer(config, data, "fp32"), config, "f" * 64)
    assert compared[0] == compared[1]
    assert compared[0]["SHA-256 of the bars"] == "f" * 12
    assert {"trainer.seed", "optimizer.lr", "encoder.hidden", "runtime.tune", "precision"} <= set(compared[0])
