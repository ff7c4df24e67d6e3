"""report and compare on a real store: what they find, what they write, what they refuse."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from harness import QUICK, ROOT, Store, browser_path
from mlflow.entities import Run

from moola_mlflow.cli import main

pytestmark = pytest.mark.slow

NOTE, COMMIT = "mlflow.note.content", "mlflow.source.git.commit"
TUNING = {"labels.n": "60", "bars.sample_bars": "20000", "folds": "3", "cv.workers": "1", "epochs": "2"}
HOSTILE = "<script>alert(1)</script> | `x` [l](javascript:1) $\\frac{ \n# h"
SECTIONS = (
    *("Configuration", "Results", "Training time", "Checkpoint", "Phase 1: frozen encoder"),
    *("Phase 2: unfrozen encoder", "Impact of the pre-training", "Classes and pointers", "Conclusions", "Next steps"),
)


@dataclass
class Done:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@dataclass
class World:
    """A store with runs of real commands; the alias `candidate` has moved between them."""

    store: Store
    path: str
    """Pre-training, path objective: version 1."""
    frozen: str
    """Fine-tuning by `@candidate`, when that was version 1."""
    unfrozen: str
    """Fine-tuning by version 1."""
    published: str
    """Pre-training, identity objective: version 2, without a fine-tuning."""
    scratch: str
    """Fine-tuning without an encoder."""

    def do(self, name: str, **parameters: str) -> Done:
        """Run a command in this process; two underscores in a key are a dot."""
        words = [word for key, value in parameters.items() for word in (f"--{key.replace('__', '.')}", value)]
        out, err = io.StringIO(), io.StringIO()
        mlflow.set_tracking_uri(self.store.uri)
        with contextlib.chdir(self.store.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main.run_cli([name, *words])
        return Done(code, out.getvalue(), err.getvalue())

    def made(self, name: str, **parameters: str) -> str:
        done = self.do(name, **parameters)
        assert done.code == 0, done.err[-3000:]
        return next(run for run in self.store.runs() if "mlflow.parentRunId" not in run.data.tags).info.run_id

    def run(self, run_id: str) -> Run:
        return self.store.client.get_run(run_id)

    def report(self, run_id: str, name: str = "report.md") -> str:
        return self.store.artifact(self.run(run_id), f"report/{name}").read_text()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(Store(tmp_path_factory.mktemp("store")), "", "", "", "", "")
    quick = {key.replace(".", "__"): value for key, value in QUICK.items()}
    tuning = {key.replace(".", "__"): value for key, value in TUNING.items()}
    configs = ROOT / "configs"
    world.path = world.made("pretrain", config=str(configs / "path.yaml"), epochs="2", **quick)
    world.frozen = world.made("finetune", encoder="models:/moola-encoder@candidate", **tuning)
    world.published = world.made("pretrain", config=str(configs / "published.yaml"), epochs="2", **quick)
    phase2 = {"config": str(configs / "phase2.yaml"), "finetune__unfreeze_at": "1"}
    world.unfrozen = world.made("finetune", encoder="models:/moola-encoder/1", **phase2, **tuning)
    world.scratch = world.made("finetune", encoder__hidden="4", **tuning)
    # MLflow notes the commit of the script that was started, which here is pytest's.
    world.store.client.set_tag(world.path, COMMIT, "c0ffee" * 6)
    return world


@pytest.fixture
def bare(world: World) -> Iterator[str]:
    """A pre-training that was killed after two epochs, with a name that somebody gave it."""
    client = world.store.client
    experiment = world.run(world.path).info.experiment_id
    run = client.create_run(experiment, tags={"moola.stage": "pretrain"}, run_name=HOSTILE).info.run_id
    for step in range(2):
        client.log_metric(run, "val/huber", 0.5 - step / 10, step=step)
    client.log_text(run, "trainer: {epochs: 9}\nobjective: {name: '<script>'}\n", "config.yaml")
    client.set_terminated(run, "KILLED")
    yield run
    client.delete_run(run)


def test_the_report_holds_the_figures_of_its_runs(world: World, tmp_path: Path) -> None:
    done = world.do("report", run_id=world.path, out=str(tmp_path / "out"))
    assert done.code == 0, done.err
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert re.findall(r"^## (.*)$", markdown, re.MULTILINE) == list(SECTIONS)
    run, frozen = world.run(world.path), world.run(world.frozen)
    for part in (
        f"`{run.data.tags[COMMIT]}`",
        f"`{run.data.tags['moola.data_sha256']}`",
        f"`{frozen.data.tags['moola.data_sha256']}`",
        f"| skill | {run.data.metrics['val/skill']:.4f} | {run.data.metrics['test/skill']:.4f} |",
        f"| encoder | {run.data.metrics['probe/r2']:.4f} |",
        *(f"`{one}`" for one in (world.path, world.frozen, world.unfrozen)),
        "`models:/moola-encoder/1`",
        "The labels are WEAK",
        "The bars are the embedded sample",
        "Phase 2 minus phase 1, on the same folds: ",
        f"run_ids={world.frozen},{world.unfrozen}",
    ):
        assert part in markdown, part
    for tuning in (frozen, world.run(world.unfrozen)):
        metrics = tuning.data.metrics
        ends = tuple(metrics[f"cv/joint_success_at_3{end}"] for end in ("", "_lo", "_hi"))
        assert "| Joint@3 | {:.3f} [{:.3f}, {:.3f}] |".format(*ends) in markdown
        plain = tuning.data.tags["moola.headline"]
        assert plain in re.sub(r"\\([<>])", r"\1", markdown)
    assert world.scratch not in markdown
    assert "EXCELLENT" not in markdown
    assert "Identity" not in markdown
    missed = run.data.metrics["probe/r2_gain"] - 0.067
    assert (
        f"| `probe_r2_gain` | {run.data.metrics['probe/r2_gain']:.4g} | `> 0.067` | **✘ missed by {-missed:.4g}** |"
        in markdown
    )
    pictures = re.findall(r"\]\((figures/[\w.-]+)\)", markdown)
    assert len(pictures) == 4 + 2 * 5
    assert all((tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert (tmp_path / "out" / "report.html").read_text().count('src="data:image/png;base64,') == len(pictures)


def test_a_report_made_again_is_the_same_from_either_end(world: World, tmp_path: Path) -> None:
    for name, run_id in (("one", world.path), ("two", world.path), ("three", world.unfrozen)):
        assert world.do("report", run_id=run_id, out=str(tmp_path / name)).code == 0
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) > 10
    logged = world.store.artifact(world.run(world.path), "report")
    for other in (tmp_path / "two", tmp_path / "three", logged):
        assert sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file()) == files
        assert all((other / path).read_bytes() == (tmp_path / "one" / path).read_bytes() for path in files)


def test_the_commands_own_run_names_the_run_that_holds_the_report(world: World) -> None:
    own = world.run(world.made("report", run_id=world.path))
    assert (own.info.status, own.data.tags["moola.stage"]) == ("FINISHED", "report")
    assert own.data.tags["moola.subject"] == world.path
    assert f"/runs/{world.path})" in own.data.tags[NOTE]


def test_an_alias_that_has_moved_makes_no_fine_tuning_another_encoders(world: World) -> None:
    """`@candidate` is the published encoder now; the run that read it by that name read the other one."""
    assert world.do("report", run_id=world.published).code == 0
    markdown = world.report(world.published)
    assert world.frozen not in markdown
    finetune = "mlflow run . -e finetune -P encoder=models:/moola-encoder/2"
    assert f"No fine-tuning has used this encoder frozen. Command: `{finetune}`" in markdown
    assert f"`{finetune} -P config=configs/phase2.yaml`" in markdown
    assert "It is not known whether this pre-training helps" in markdown


def test_the_published_objective_has_its_levels_and_is_called_a_copy(world: World) -> None:
    assert world.do("report", run_id=world.published).code == 0
    markdown = world.report(world.published)
    assert "### Published thresholds" in markdown
    assert re.search(r"\| validation loss \| -?\d+\.\d+ \| (EXCELLENT|GOOD|WARNING) \|", markdown)
    assert "measure copying, not understanding" in markdown


def test_a_killed_run_is_reported_as_far_as_it_came(world: World, bare: str) -> None:
    done = world.do("report", run_id=bare)
    assert done.code == 0, done.err
    markdown = world.report(bare)
    assert "There are no results: the run is KILLED after 2 of 9 epochs." in markdown
    assert f"`moola pretrain --config .moola/runs/{bare}/config.yaml --resume {bare}`" in markdown
    assert re.findall(r"^## (.*)$", markdown, re.MULTILINE) == list(SECTIONS)


def test_a_hostile_name_is_text_in_every_place(world: World, bare: str) -> None:
    assert world.do("report", run_id=bare).code == 0
    assert world.do("compare", run_ids=f"{bare},{world.path}").code == 0
    compared = next(run for run in world.store.runs() if run.data.tags.get("moola.stage") == "compare")
    pages = [world.report(bare, "report.html"), world.store.artifact(compared, "compare/compare.html").read_text()]
    for page in pages:
        assert "<script" not in page
        assert "&lt;script&gt;alert(1)" in page
        assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    texts = [world.report(bare), world.store.artifact(compared, "compare/compare.md").read_text()]
    texts.append(compared.data.tags[NOTE])
    for text in texts:
        assert not re.search(r"(?<!\\)<(?=script>alert)", text)
        assert "](javascript" not in re.sub(r"\\\]", "", text)


def test_a_fine_tuning_of_unknown_origin_is_named_not_guessed(world: World) -> None:
    client = world.store.client
    experiment = world.run(world.path).info.experiment_id
    lost = client.create_run(experiment, tags={"moola.stage": "finetune"}, run_name="lost").info.run_id
    client.log_param(lost, "finetune.encoder", "models:/moola-encoder@candidate")
    client.set_terminated(lost, "KILLED")
    try:
        assert world.do("report", run_id=world.published).code == 0
        assert f"It is not recorded whether `{lost}` (lost) belongs here" in world.report(world.published)
        done = world.do("report", run_id=lost)
        assert done.code == 2
        assert "of unknown origin" in done.err
    finally:
        client.delete_run(lost)
    done = world.do("report", run_id=lost)
    assert done.code == 2
    assert f"is deleted; bring it back: mlflow runs restore --run-id {lost}" in done.err


def test_runs_that_are_not_to_be_reported_on_are_refused_in_one_message(world: World, tmp_path: Path) -> None:
    fold = next(run for run in world.store.runs() if run.data.tags["moola.stage"] == "fold").info
    other = world.made("report", run_id=world.path)
    (tmp_path / "file").write_text("mine")
    refused = {
        world.path[:10]: f"did you mean '{world.path}'",
        world.run(world.path).info.run_name: f"did you mean '{world.path}'",
        world.path[:-1] + ("0" if world.path[-1] != "0" else "1"): f"did you mean '{world.path}'",
        "no such run": "is no run of the store",
        world.scratch: "without an encoder",
        fold.run_id: "is a fold run; give a pretrain or finetune run (it is a fold of ",
        other: "is a report run; give a pretrain or finetune run",
    }
    for given, said in refused.items():
        done = world.do("report", run_id=given)
        assert done.code == 2, given
        assert said in done.err, done.err
        assert len(done.err.strip().splitlines()) == 1
    assert world.do("report").code == 2
    done = world.do("report", run_id=world.path, out=str(tmp_path / "file"))
    assert done.code == 2
    assert "cannot be a folder" in done.err
    assert world.store.refused()[0].data.tags["moola.stage"] == "report"


def test_two_phases_are_compared_window_by_window(world: World, tmp_path: Path) -> None:
    done = world.do("compare", run_ids=f"{world.frozen},{world.unfrozen}", out=str(tmp_path))
    assert done.code == 0, done.err
    a, b = world.run(world.frozen), world.run(world.unfrozen)
    difference = b.data.metrics["cv/joint_success_at_3"] - a.data.metrics["cv/joint_success_at_3"]
    row = next(line for line in done.out.splitlines() if line.startswith("| B - A | Joint@3 |"))
    assert re.search(r"\| ([+-][\d.]+) \[", row)[1] == f"{difference:+.3f}"  # type: ignore[index]
    assert "60 windows in 60 groups, 1 of 1 draws of the folds shared" in row
    assert "| `finetune.freeze` | `True` | `False` |" in done.out
    assert "`finetune.head`" not in done.out
    page = (tmp_path / "compare.html").read_text()
    assert page.count("<img") == 1 + 3  # scores; loss, Joint@3 and likelihood of the folds
    own = next(run for run in world.store.runs() if run.data.tags.get("moola.compared"))
    assert (own.info.status, own.data.tags["moola.stage"]) == ("FINISHED", "compare")
    assert "Paired differences" in own.data.tags[NOTE]
    assert world.store.artifact(own, "compare/compare.html").read_bytes() == (tmp_path / "compare.html").read_bytes()


def test_two_pretrainings_have_their_curves_on_one_picture_and_no_losses_set_against_each_other(world: World) -> None:
    done = world.do("compare", run_ids=f"{world.path},{world.published}")
    assert done.code == 0, done.err
    assert "Losses and skills are not on one scale" in done.out
    assert "| `objective.name` | `price_path` | `masked` |" in done.out
    a, b = (world.run(one).data.metrics["probe/r2_gain"] for one in (world.path, world.published))
    assert f"| `probe/r2_gain` | {a:.5g} | {b:.5g} | {b - a:+.4g} |" in done.out
    assert "Paired" not in done.out
    own = next(run for run in world.store.runs() if run.data.tags.get("moola.compared"))
    folder = world.store.artifact(own, "compare/figures")
    assert {path.name for path in folder.iterdir()} == {"curves-loss.png", "curves-huber.png", "curves-skill.png"}


def test_runs_that_cannot_be_compared_are_refused_in_one_message(world: World) -> None:
    refused = {
        world.path: "names 1 runs; allowed: 2 to 8",
        f"{world.path},{world.path}": "twice",
        f"{world.path},{world.frozen}": "different kinds",
        f"{world.path},{world.published[:12]}": f"did you mean '{world.published}'",
        "": "names 0 runs",
    }
    for given, said in refused.items():
        done = world.do("compare", run_ids=given)
        assert done.code == 2, given
        assert said in done.err, done.err
        assert len(done.err.strip().splitlines()) == 1


def test_the_pages_open_in_a_browser_with_nothing_to_complain_of(world: World, bare: str, tmp_path: Path) -> None:
    browser = browser_path()
    assert world.do("report", run_id=world.path, out=str(tmp_path)).code == 0
    assert world.do("report", run_id=bare, out=str(tmp_path / "bare")).code == 0
    assert world.do("compare", run_ids=f"{world.frozen},{world.unfrozen}", out=str(tmp_path)).code == 0
    for page in (tmp_path / "report.html", tmp_path / "bare" / "report.html", tmp_path / "compare.html"):
        seen = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
             f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert "CONSOLE" not in seen.stderr, seen.stderr
        assert "<h2" in seen.stdout
        assert "<script" not in seen.stdout
