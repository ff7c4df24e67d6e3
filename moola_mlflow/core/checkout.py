"""The git checkout that this package runs from: its commit, and what of it is not committed.

MLflow looks at the folder of the script instead: of the console script of an environment, or of a notebook.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
LIMIT_S = 20


def git_commit(package: Path = PACKAGE) -> str:
    """Return the commit of the checkout that a package is part of. It is empty for an installed wheel.

    >>> git_commit(Path("/"))
    ''
    """
    # An environment inside another project's checkout is no part of it: git does not track its files.
    if not _git(package, "ls-files", "--error-unmatch", "__init__.py"):
        return ""
    return _git(package, "rev-parse", "HEAD").strip()


def git_diff(package: Path = PACKAGE) -> str:
    """Return the uncommitted changes of the checkout that a package is part of, empty without changes or checkout."""
    return _git(package.parent, "diff", "HEAD", "--", ".") if git_commit(package) else ""


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, errors="replace", timeout=LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
