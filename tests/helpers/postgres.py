"""A real PostgreSQL server of the tests' own, which takes no root and can be stopped and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
from harness import absent, free_port


def binaries() -> Path:
    """The folder of PostgreSQL's programs; packages keep them out of the PATH."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    packaged = max((path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)
    return packaged or absent("PostgreSQL's initdb", "apt-get install postgresql")


@dataclass
class Postgres:
    """A server with a folder of its own, in which its databases outlive it."""

    programs: Path = field(default_factory=binaries)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="moola-pg-", dir="/tmp"))
        self._as_user: dict[str, Any] = {"cwd": self.folder}
        if os.getuid() == 0:
            names = {entry.pw_name: entry for entry in pwd.getpwall()}
            user = names.get("postgres") or names["nobody"]
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        words = [self.programs / "initdb", "-D", self.folder / "data", "-A", "trust", "-U", "moola", "--no-sync"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, **self._as_user)

    def start(self) -> None:
        """Start it, if it does not run, and wait until it answers."""
        if self.process is not None:
            return
        words = [self.programs / "postgres", "-D", self.folder / "data", "-h", "127.0.0.1", "-p", str(self.port),
                 "-k", self.folder, "-F"]  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(words, **quiet, **self._as_user)
        deadline = time.monotonic() + 60
        while True:
            try:
                self._execute("SELECT 1")
                return
            except sqlalchemy.exc.OperationalError:
                assert time.monotonic() < deadline, "PostgreSQL did not start within 60 s"
                time.sleep(0.2)

    def kill(self, signum: int = signal.SIGQUIT) -> None:
        """Stop it at once, as `pg_ctl stop -m immediate` does: what its clients are in the middle of is lost."""
        if self.process is not None:
            self.process.send_signal(signum)
            self.process.wait(60)
            self.process = None

    def remove(self) -> None:
        """Stop it in order, and remove what it has stored."""
        self.kill(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, name: str) -> str:
        """Make an empty database; return its address."""
        self._execute(f"CREATE DATABASE {name}")
        return self._address(name)

    def _execute(self, statement: str) -> None:
        engine = sqlalchemy.create_engine(self._address("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(statement))
        engine.dispose()

    def _address(self, name: str) -> str:
        return f"postgresql+psycopg://moola@127.0.0.1:{self.port}/{name}"
