"""One server with PostgreSQL and a bucket, as docs/how-to/remote.md sets it up: two trainings and a sweep at once."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import mlflow
import pytest
import torch
from documented import commands, reduced
from harness import Served, free_port, wait_for_server
from mlflow.entities import Run
from postgres import Postgres
from s3 import s3_server
from warm_process import start_python

import moola_mlflow
from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.models.files.checkpoint import load_checkpoint
from tests.e2e.sweep.test_sweep import assert_done

pytestmark = pytest.mark.slow
LINES = [line for line, _ in commands("docs/how-to/remote.md")]
SERVER = next(line for line in LINES if line.startswith("mlflow server ") and "s3://" in line)
EXPORTS = [line for line in LINES if line.startswith(("export AWS_", "export MLFLOW_S3_"))]
PRETRAIN, SWEEP = (
    next(line for line in LINES[LINES.index(SERVER) :] if line.startswith(f"moola {name} "))
    for name in ("pretrain", "sweep")
)
(OTHER_PROGRAMS,) = (
    line.split()[1].split("=") for line in LINES if line.startswith("export MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD=")
)
UNREACHABLE = "http://127.0.0.9:9"
"""Where the bucket is for the server alone: its variable HTTP_PROXY leads there, and nobody listens otherwise."""
NUM_TRIALS, EPOCHS = 6, 2


@dataclass
class Recipe:
    """The page's lines with the addresses of this test, and a folder for the server."""

    folder: Path
    store: str
    database: str
    bucket: str
    port: int

    def words(self, line: str) -> list[str]:
        """The words of a line of the page."""
        for shown, ours in (
            ("http://127.0.0.1:9000", UNREACHABLE),
            ("postgresql+psycopg://moola@127.0.0.1/mlflow", self.database),
            ("s3://moola/", f"s3://{self.bucket}/"),
            ("--port 5000", f"--port {self.port}"),
        ):
            assert shown in " ".join(LINES), f"the page no longer shows {shown}"
            line = line.replace(shown, ours)
        return shlex.split(line)

    @property
    def keys(self) -> dict[str, str]:
        """What the page exports on the server's machine, and the way to the bucket from there."""
        return {**dict(self.words(line)[1].split("=", 1) for line in EXPORTS), "HTTP_PROXY": self.store}

    def s3(self) -> boto3.resources.base.ServiceResource:
        names = ("aws_access_key_id", "aws_secret_access_key", "region_name")
        keys = (self.keys[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"))
        return boto3.resource("s3", endpoint_url=self.store, **dict(zip(names, keys, strict=True)))

    def objects(self, prefix: str) -> dict[str, str]:
        """SHA-256 of each file in the bucket below a prefix, by its path there."""
        found = self.s3().Bucket(self.bucket).objects.filter(Prefix=prefix)
        return {one.key.removeprefix(prefix): sha256(one.get()["Body"].read()) for one in found}

    @contextmanager
    def served(self, line: str) -> Iterator[str]:
        """Start a server with a line of the page. Yields its address."""
        words = ["-m", *self.words(line), "--workers", "2"]
        environment = {**without_keys(), **self.keys, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        address = f"http://127.0.0.1:{self.port}"
        with open(self.folder / "server.log", "w", encoding="utf-8") as log:
            server = start_python(words, self.folder, environment, log)
        try:
            wait_for_server(address, self.folder / "server.log")
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def without_keys() -> dict[str, str]:
    """This process's environment without what leads to a store or a bucket."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "AWS_"))}
    return {**kept, "AWS_EC2_METADATA_DISABLED": "true"}  # boto3 would look for keys of a machine in the cloud


@dataclass
class Person(Served):
    """Somebody who trains in a folder of their own, on bars of their own, without a key to the bucket."""

    seed: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir()
        super().__post_init__()
        generate_bars(12_000, self.seed).to_parquet(self.folder / "bars.parquet")

    @property
    def environment(self) -> dict[str, str]:
        ours = {key: value for key, value in super().environment.items() if not key.startswith("AWS_")}
        return {**ours, "HOME": str(self.folder.parent), "AWS_EC2_METADATA_DISABLED": "true"}

    def begin(self, words: list[str], **given: str) -> subprocess.Popen[str]:
        """Start a command of the page, made small."""
        pairs = [word for key, value in given.items() for word in (f"--{key}", value)]
        return start_python([*reduced(shlex.join(words))[1:], *pairs], self.folder, self.environment)

    def local(self, run: Run) -> dict[str, str]:
        """SHA-256 of each file in the run's folder on this machine, by its path there."""
        folder = self.folder / ".moola/runs" / run.info.run_id
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): sha256(path.read_bytes()) for path in files}


@pytest.fixture(scope="module")
def recipe(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recipe]:
    with s3_server() as store:
        database, bucket = postgres.create("shared"), f"moola-{uuid.uuid4().hex}"
        made = Recipe(tmp_path_factory.mktemp("shared"), store, database, bucket, free_port())
        made.s3().create_bucket(Bucket=bucket)
        yield made


@pytest.fixture(autouse=True)
def no_store_of_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ours = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD")
    for name in ours:
        monkeypatch.delenv(name, raising=False)
    yield
    mlflow.set_tracking_uri(None)


def test_two_trainings_and_four_workers_at_once_leave_every_file_of_every_run_in_the_bucket(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a download that asks the bucket fails soon
    with recipe.served(SERVER) as address:
        one, two, three = (Person(tmp_path / str(seed), address, seed) for seed in range(3))
        processes = [who.begin(recipe.words(PRETRAIN), epochs=str(EPOCHS)) for who in (one, two)]
        processes.append(three.begin(recipe.words(SWEEP), study="shared", n_trials=str(NUM_TRIALS), workers="4"))
        said = [process.communicate(timeout=400)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0, 0], said

        parent, trials = assert_done(one, "shared", NUM_TRIALS)
        assert sorted(int(run.data.tags["moola.trial"]) for run in trials) == list(range(NUM_TRIALS))
        assert Counter(run.info.status for run in one.runs()) == {"FINISHED": NUM_TRIALS + 3}
        trained = {run.info.run_id: run for run in one.runs() if run.data.tags.get("moola.stage") == "pretrain"}
        versions = one.client.search_model_versions("name='moola-encoder'")
        assert {version.run_id for version in versions} == set(trained)
        assert sorted(int(version.version) for version in versions) == [1, 2]
        assert len({run.data.tags["moola.data_sha256"] for run in trained.values()}) == 2

        for who in (one, two, three):
            assert {path.name for path in who.folder.iterdir()} == {"bars.parquet", ".moola"}
            (name,) = [path.name for path in (who.folder / ".moola/runs").iterdir()]
            run = parent if who is three else trained.pop(name)
            assert run.info.run_id == name
            kept, downloaded = recipe.objects(f"artifacts/{run.info.experiment_id}/{name}/artifacts/"), tmp_path / name
            with monkeypatch.context() as own:  # as the page says for other programs
                own.setenv(*OTHER_PROGRAMS)
                mlflow.artifacts.download_artifacts(run_id=name, dst_path=str(downloaded))
            files = [path for path in downloaded.rglob("*") if path.is_file()]
            assert {str(path.relative_to(downloaded)): sha256(path.read_bytes()) for path in files} == kept
            shared = who.local(run).keys() & kept.keys()
            assert {path: who.local(run)[path] for path in shared} == {path: kept[path] for path in shared}
            if who is three:
                assert {"config.yaml", "best_config.yaml"} <= shared
                assert {"trials.json", "sweep.html"} <= set(kept)
                continue
            assert {"config.yaml", "encoder/weights.safetensors", "checkpoints/checkpoint_best.pt"} <= shared
            assert {"training_results.json", "curves.html"} <= set(kept)
            assert load_checkpoint(downloaded / "checkpoints/checkpoint_latest.pt")["epoch"] == EPOCHS - 1
            (version,) = [version.version for version in versions if version.run_id == name]
            places = (f"models:/moola-encoder/{version}", who.folder / ".moola/runs" / name / "encoder")
            served, own_copy = (moola_mlflow.load_encoder(place).state_dict() for place in places)
            assert served.keys() == own_copy.keys()
            assert all(torch.equal(served[key], own_copy[key]) for key in served)
        assert trained == {}


def test_a_bucket_without_the_server_between_needs_keys_and_a_run_without_them_keeps_its_files(
    recipe: Recipe, tmp_path: Path
) -> None:
    line = SERVER.replace("--artifacts-destination", "--default-artifact-root")
    with recipe.served(line) as address:
        without = Person(tmp_path / "without", address)
        training = without.begin(recipe.words(PRETRAIN), **{"tracking.experiment": "direct"})
        said = training.communicate(timeout=400)[0]
        assert training.returncode == 0, said
        (folder,) = (without.folder / ".moola/runs").iterdir()
        assert f"moola sync .moola/runs/{folder.name}" in said
        run = without.client.get_run(folder.name)
        prefix = f"artifacts/{run.info.experiment_id}/{folder.name}/artifacts/"
        assert recipe.objects(prefix) == {}
