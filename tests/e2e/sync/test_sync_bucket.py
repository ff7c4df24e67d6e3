"""A run whose machine lacks the keys of a bucket: its files wait, and `moola sync` brings them once there are keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import mlflow
import pytest
from harness import Store
from outage import fill, here
from s3 import KEYS, s3_server
from warm_process import run_python

from moola_mlflow.tracking.delivery import count_unsent
from moola_mlflow.tracking.run import Run

pytestmark = pytest.mark.slow
BUCKET = "a-teams-bucket"


@pytest.fixture
def bucket() -> Iterator[Any]:
    """A client with the keys of what answers as S3 does, with an empty bucket."""
    names = ("aws_access_key_id", "aws_secret_access_key", "region_name")
    with s3_server() as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint, **dict(zip(names, KEYS.values(), strict=True)))
        client.create_bucket(Bucket=BUCKET)
        yield client


def test_files_wait_for_the_keys_of_a_bucket_and_come_by_sync(
    bucket: Any, workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(workdir)
    here(monkeypatch, store.uri)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(workdir / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # otherwise boto3 asks for keys of a machine in the cloud
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", bucket.meta.endpoint_url)
    mlflow.create_experiment("bucket", f"s3://{BUCKET}/runs")

    with Run.start("pretrain", "without keys", "bucket") as active:
        fill(active, range(3))
    said = capsys.readouterr().out
    assert said.count("Unable to locate credentials") == 1
    assert said.rstrip().endswith(f"moola sync {active.folder}")

    def sync(environment: dict[str, str]) -> tuple[int, str]:
        done = run_python(["-m", "moola_mlflow", "sync", str(active.folder)], workdir, environment)
        return done.returncode, done.stdout + done.stderr

    code, refused = sync(dict(os.environ))
    assert code == 1, refused
    assert "does not take 2 of 4 events" in refused
    assert "Unable to locate credentials" in refused
    assert "Traceback" not in refused
    code, synced = sync({**os.environ, **KEYS})
    assert code == 0, synced
    run = active.client.get_run(active.id)
    assert run.info.status == "FINISHED"
    assert [point.step for point in active.client.get_metric_history(active.id, "val/huber")] == [0, 1, 2]
    assert count_unsent(active.folder) == 0
    found = {one["Key"].rpartition("/artifacts/")[2] for one in bucket.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert found == {"notes/hello.txt", "tables/found.json"}
