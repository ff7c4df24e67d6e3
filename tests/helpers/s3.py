"""A store that answers as S3 does, on this machine, for tests of addresses that begin with s3://."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve what answers as S3 does. Yields its endpoint. The server's buckets stay in this process."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def s3_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve an empty bucket of a new name, and set the variables that S3's clients read. Yields its address.

    The reader fetches an address once, hence the new name.
    """
    s3fs = pytest.importorskip("s3fs")
    with s3_server() as endpoint:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        try:
            bucket = f"bars-{uuid.uuid4().hex}"
            s3fs.S3FileSystem().mkdir(bucket)
            yield f"s3://{bucket}"
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
