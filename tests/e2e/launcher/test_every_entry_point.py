"""Every entry point by `moola` and by `mlflow run`, each at its smallest honest size.

On real bars, or, where they are not at hand, on synthetic ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pytest
from documented import REAL_BARS, ROOT, clone, run
from harness import Store
from mlflow.entities import Run
from touched import windows_of

from moola_mlflow.bars.reader import read_bars
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.cli.entry_points import ENTRY_POINTS
from moola_mlflow.core import BarsConfig
from moola_mlflow.labels.label_files import read_span_labels

ELSEWHERE = {
    "main": "test_tour_command.py::test_the_tour_runs_every_command_and_a_second_one_makes_new_versions",
    "annotate": "test_annotate_command.py::test_the_launcher_serves_the_page_too",
}
"""Entry points that read no bars of the user's, or that wait for a person; by both launchers they are tried there."""
LAUNCHERS = ("moola", "mlflow run")
SMALL = {"config": "configs/smoke.yaml", "encoder.hidden": "4", "epochs": "1"}
EVERYTHING = {"detect.min_probability": "0", "detect.min_span_score": "0", "detect.margin": "0"}


@dataclass
class Ended:
    """What a command said, the run that it made, and the folder for its results."""

    said: str
    made: list[Run]
    out: Path

    @property
    def run(self) -> Run:
        (run,) = self.made
        return run


@dataclass
class World:
    """A fresh clone with nothing exported, so that both launchers use its default store; commands run in it."""

    folder: Path
    bars: Path
    """Bars of several contracts."""
    raw: Path
    """A few bars as a vendor delivers them."""
    done: dict[tuple[str, str], Ended] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.folder)

    @property
    def front(self) -> dict[str, str]:
        return {"bars": str(self.bars), "bars.instrument": "front"}

    @property
    def num_bars(self) -> str:
        return f"{len(pd.read_parquet(self.bars)):,}"

    def first(self, name: str) -> Ended:
        """How a command ended that others depend on, by whichever launcher it was run first."""
        there = (ended for (other, _), ended in self.done.items() if other == name)
        return next(there, None) or self.by("moola", name)

    def by(self, launcher: str, name: str) -> Ended:
        """How a command ended; it is run once."""
        if (name, launcher) not in self.done:
            out = self.folder / "made" / launcher.replace(" ", "-")
            given = CASES[name].given(self, out)
            before = {one.info.run_id for one in self.runs()}
            done = run(command(name, launcher, given), self.folder)
            assert done.returncode == 0, f"{launcher}, {name}: {done.stdout[-2000:]}\n{done.stderr[-3000:]}"
            new = [one for one in self.runs() if one.info.run_id not in before]
            made = [one for one in new if "mlflow.parentRunId" not in one.data.tags]
            self.done[name, launcher] = Ended(done.stdout, made, out)
        return self.done[name, launcher]

    def runs(self) -> list[Run]:
        """All runs; a store that no command has made yet is not made here, where artifacts would have another root."""
        return self.store.runs() if (self.folder / "mlflow.db").is_file() else []

    def version(self, model: str, of: Run) -> str:
        """The version of a model that a run registered."""
        (found,) = self.store.client.search_model_versions(f"name = '{model}' and run_id = '{of.info.run_id}'")
        return str(found.version)

    def children(self, of: Run) -> list[Run]:
        return [one for one in self.runs() if one.data.tags.get("mlflow.parentRunId") == of.info.run_id]


@dataclass(frozen=True)
class Case:
    """What an entry point is given, and what it must have left."""

    given: Callable[[World, Path], Mapping[str, str]]
    check: Callable[[World, Ended], None]
    makes_a_run: bool = True
    """Whether `moola` makes one; the launcher always does."""


def command(name: str, launcher: str, given: Mapping[str, str]) -> list[str]:
    if launcher == "moola":
        return ["moola", name, *(word for key, value in given.items() for word in (f"--{key}", value))]
    pairs = (word for key, value in given.items() for word in ("-P", f"{key}={value}"))
    return ["mlflow", "run", ".", "-e", name, "--env-manager", "local", *pairs]


def check_data(world: World, ended: Ended) -> None:
    frame = pd.read_parquet(ended.out / "es.parquet")
    assert len(frame) == ended.run.data.metrics["bars/bars"] > 0
    bars = read_bars(BarsConfig(path=str(world.raw), instrument="front"), 1)
    assert frame["close"].tolist() == bars.ohlc[:, 3].tolist()
    assert set(frame["symbol"]) == set(bars.symbols.values())


def check_features(world: World, ended: Ended) -> None:
    report = json.loads(world.store.artifact(ended.run, "features/quality.json").read_text())
    assert len(report["features"]) == 11
    assert f"{world.num_bars} bars" in ended.said
    assert "no feature refused" in ended.said


def check_rules(world: World, ended: Ended) -> None:
    rows = pd.read_csv(ended.out / "rules" / "rules.csv")
    assert len(rows[rows["selector"].notna()]) == ended.run.data.metrics["rules/drawn"] == 8
    assert world.store.artifact(ended.run, "rules.html").stat().st_size > 20_000


def check_label(world: World, ended: Ended) -> None:
    labels, run = read_span_labels(ended.out / "labels.parquet"), ended.run
    assert labels.weak
    assert 50 < len(labels) == run.data.metrics["labels/used"] < 174
    warning = f"{len(labels)} labelled windows found, fewer than the 174"
    assert warning in run.data.tags["moola.warnings"]
    assert warning in run.data.tags["mlflow.note.content"]
    assert read_span_labels(world.store.artifact(run, "labels.parquet")).sha256 == labels.sha256


def check_labels(world: World, ended: Ended) -> None:
    labels = read_span_labels(world.first("label").out / "labels.parquet")
    assert read_span_labels(ended.out / "again.parquet").sha256 == labels.sha256
    assert ended.run.data.metrics["labels/windows"] == len(labels)
    page = world.store.artifact(ended.run, "labels.html").read_text(encoding="utf-8")
    assert sum(map(len, windows_of(page))) == len(labels)
    assert page == (ended.out / "again.html").read_text(encoding="utf-8")


def check_pretrain(world: World, ended: Ended) -> None:
    assert ended.run.data.metrics["leak/masked_sensitivity"] == 0
    assert world.store.artifact(ended.run, "encoder/encoder.json").is_file()
    version = world.version("moola-encoder", ended.run)
    assert f"Encoder: moola-encoder version {version}" in ended.said
    assert str(world.store.client.get_model_version_by_alias("moola-encoder", "candidate").version) == version


def check_finetune(world: World, ended: Ended) -> None:
    assert ended.run.info.run_name.startswith("finetune-finetune-17-20")
    params = ended.run.data.params
    assert params["cv.folds"] == params.get("folds", "2") == "2"  # the launcher logs what it was given, too
    assert [one.info.status for one in world.children(ended.run)] == ["FINISHED"] * 2
    assert json.loads(world.store.artifact(ended.run, "cv_summary.json").read_text())["avg_metrics"]["f1_macro"]
    assert f"Detector: models:/moola-detector/{world.version('moola-detector', ended.run)}\n" in ended.said


def check_sweep(world: World, ended: Ended) -> None:
    assert [one.info.status for one in world.children(ended.run)] == ["FINISHED"] * 2
    assert "Best of " in ended.said
    assert world.store.artifact(ended.run, "best_config.yaml").is_file()


def check_promote(world: World, ended: Ended) -> None:
    champion = world.store.client.get_model_version_by_alias("moola-detector", "champion")
    assert str(champion.version) == ended.run.data.tags["moola.to"] == detector_version(world)
    assert f"moola-detector: champion is {'now ' * ('now' in ended.said)}version {champion.version}" in ended.said


def check_detect(world: World, ended: Ended) -> None:
    hits = pd.read_parquet(ended.out / "found" / "detections.parquet")
    assert len(hits) == ended.run.data.metrics["detect/hits"] > 10
    assert set(hits["instrument"]) <= set(pd.read_parquet(world.bars)["symbol"])
    assert (ended.out / "found" / "detections.html").stat().st_size > 50_000
    assert ended.run.data.tags["moola.detector"] == f"models:/moola-detector/{detector_version(world)}"


def check_evaluate(world: World, ended: Ended) -> None:
    events = pd.read_parquet(ended.out / "evaluated" / "evaluation.parquet")
    figures = ended.run.data.metrics
    assert (events["judged"] == "missed").sum() == figures["eval/missed"] <= figures["eval/true_events"]
    assert ended.run.data.tags["moola.truth"] == "the rule surge-1"
    assert (ended.out / "evaluated" / "evaluation.html").stat().st_size > 50_000
    assert ended.run.data.tags["moola.detector"] == f"models:/moola-detector/{detector_version(world)}"


def check_report(world: World, ended: Ended) -> None:
    subject = world.first("pretrain").run
    assert f"under report/ of run {subject.info.run_id}" in ended.said
    for name in ("report.md", "report.html"):
        written = (ended.out / "report" / name).read_bytes()
        assert written == world.store.artifact(subject, f"report/{name}").read_bytes()
    assert world.num_bars in (ended.out / "report" / "report.md").read_text()


def check_compare(world: World, ended: Ended) -> None:
    assert (ended.out / "compared" / "compare.html").is_file()
    for name in ("compare.md", "compare.html"):
        assert world.store.artifact(ended.run, f"compare/{name}").is_file()
    assert "trainer.batch_size" in ended.said or "optimizer.lr" in ended.said


def check_sync(world: World, ended: Ended) -> None:
    run_id = world.first("pretrain").run.info.run_id
    assert f"Run {run_id} is whole in '{world.store.uri}' and FINISHED" in ended.said.replace(
        "sqlite:///mlflow.db", world.store.uri
    )


def check_doctor(world: World, ended: Ended) -> None:
    lines = ended.said.splitlines()
    assert any(line.startswith("ok      store sqlite:///") for line in lines)
    assert [line for line in lines if line.startswith("WRONG")] == []


def detector_version(world: World) -> str:
    return world.version("moola-detector", world.first("finetune").run)


CASES = {
    "data": Case(
        lambda world, out: {
            **{"bars": str(world.raw), "bars.instrument": "front", "out": str(out / "es.parquet")},
            "windows.length": "2",  # the file holds a few bars
        },
        check_data,
    ),
    "features": Case(lambda world, out: world.front, check_features),
    "rules": Case(
        lambda world, out: {**world.front, "objective.num_rules": "8", "out": str(out / "rules")}, check_rules
    ),
    "label": Case(
        lambda world, out: {**world.front, "n": "174", "out": str(out / "labels.parquet"), "seed": "3"}, check_label
    ),
    "labels": Case(
        lambda world, out: {
            "labels": str(world.first("label").out / "labels.parquet"),
            "out": str(out / "again.parquet"),
        },
        check_labels,
    ),
    "pretrain": Case(lambda world, out: {**world.front, **SMALL}, check_pretrain),
    "finetune": Case(
        lambda world, out: {
            "labels": str(world.first("label").out / "labels.parquet"),
            "encoder": f"models:/moola-encoder/{world.version('moola-encoder', world.first('pretrain').run)}",
            **{"epochs": "1", "folds": "2", "cv.workers": "1"},
        },
        check_finetune,
    ),
    "sweep": Case(
        lambda world, out: {
            **world.front,
            **{"base": "configs/smoke.yaml", "encoder.hidden": "4", "trainer.epochs": "1", "n_trials": "2"},
        },
        check_sweep,
    ),
    "promote": Case(lambda world, out: {"version": detector_version(world), "force": "true"}, check_promote),
    "detect": Case(
        lambda world, out: {**(world.first("promote") and world.front), **EVERYTHING, "out": str(out / "found")},
        check_detect,
    ),
    "evaluate": Case(
        lambda world, out: {
            **(world.first("promote") and world.front),
            **{"detect.min_span_score": "0", "detect.margin": "0", "out": str(out / "evaluated")},
        },
        check_evaluate,
    ),
    "report": Case(
        lambda world, out: {"run_id": world.first("pretrain").run.info.run_id, "out": str(out / "report")},
        check_report,
    ),
    "compare": Case(
        lambda world, out: {
            "run_ids": ",".join(one.info.run_id for one in world.children(world.first("sweep").run)),
            "out": str(out / "compared"),
        },
        check_compare,
    ),
    "sync": Case(
        lambda world, out: {"run_dir": f".moola/runs/{world.first('pretrain').run.info.run_id}"},
        check_sync,
        makes_a_run=False,
    ),
    "doctor": Case(lambda world, out: {}, check_doctor, makes_a_run=False),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = clone(tmp_path_factory.mktemp("clone"))
    if REAL_BARS.is_file():
        return World(folder, REAL_BARS, REAL_BARS.parent / "GLBX.MDP3__test_data.ohlcv-1m.dbn.zst")
    generate_bars(20_000, 9).to_parquet(folder / "made_up.parquet")
    return World(folder, folder / "made_up.parquet", folder / "my_bars.parquet")


def test_every_entry_point_has_its_case() -> None:
    assert {*CASES, *ELSEWHERE} == set(ENTRY_POINTS), "a new entry point needs a case here"
    for place in ELSEWHERE.values():
        file, _, test = place.partition("::")
        (path,) = (ROOT / "tests").rglob(file)
        assert f"def {test}" in path.read_text(encoding="utf-8")


# In this order: of two workers each takes one launcher, and finds there what a command depends on.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "name"),
    [
        (launcher, name)
        for launcher in LAUNCHERS
        for name, entry in ENTRY_POINTS.items()
        if name not in ELSEWHERE and (entry.launched or launcher == "moola")
    ],
)
def test_an_entry_point_does_its_work_by_either_launcher(world: World, name: str, launcher: str) -> None:
    ended = world.by(launcher, name)
    expected = [(name, "FINISHED")] if CASES[name].makes_a_run or launcher == "mlflow run" else []
    assert [(one.data.tags["moola.stage"], one.info.status) for one in ended.made] == expected
    CASES[name].check(world, ended)


@pytest.mark.slow
def test_the_console_script_helps_with_every_entry_point() -> None:
    for name, entry in ENTRY_POINTS.items():
        done = run(["moola", name, "--help"], ROOT)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"moola {name}: {entry.summary}\n")
