"""Look for known faults: bandit over the code, pip-audit over the pinned packages; list licences and all parts.

    make audit        # results in build/audit

A finding of bandit (medium or high) that `EXPLAINED` does not hold fails. So does a known fault of a package. If the
index of packages has no list of known faults, pip-audit says so and nothing fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "audit"
EXPLAINED = {
    ("moola_mlflow/annotate/security.py", "B104"): "it compares with the address of all interfaces, and binds nothing",
    ("moola_mlflow/annotate/server.py", "B104"): "it shows the host's name for the address of all interfaces",
    ("moola_mlflow/core/config/base.py", "B506"): "the loader is YAML's safe one, with further limits",
    ("moola_mlflow/evaluation/workers.py", "B301"): "the parent wrote the file into a folder that only its user enters",
    ("moola_mlflow/tracking/recovery/relocation.py", "B608"): "table and column are constants; values are parameters",
    ("tools/conda_standin.py", "B324"): "MLflow names its environments by SHA-1; nothing is protected by it",
    ("tools/annotate_pictures.py", "B310"): "the address is that of a server that the tool has started",
    ("tools/screenshots.py", "B310"): "the address is that of a server that the tool has started",
}
"""Findings that are no faults, by file and test of bandit, each with the reason."""


def unexplained(findings: Sequence[dict[str, object]]) -> list[str]:
    """Return the findings of bandit that nobody has explained, one line each."""
    return [
        f"{one['filename']}:{one['line_number']}: {one['test_id']} {one['issue_severity']}: {one['issue_text']}"
        for one in findings
        if (str(one["filename"]).removeprefix("./"), one["test_id"]) not in EXPLAINED
    ]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment in the project's folder."""
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True)


def audit_code() -> list[str]:
    """Run bandit. Return what is wrong."""
    done = run("bandit", "-q", "-ll", "-r", "moola_mlflow", "tools", "-f", "json")
    return unexplained(json.loads(done.stdout)["results"])


def audit_packages() -> list[str]:
    """Run pip-audit over the pinned packages. Return what is wrong."""
    done = run("pip_audit", "-r", "requirements.lock", "--no-deps", "--disable-pip", "-f", "json")
    if not done.stdout.strip():
        print(f"pip-audit cannot ask: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
        return []
    packages = json.loads(done.stdout)["dependencies"]
    unknown = [one["name"] for one in packages if "skip_reason" in one]
    print(f"pip-audit: {len(packages)} packages, of which the index knows nothing of {len(unknown)}")
    return [
        f"{one['name']} {one['version']}: {fault['id']}, cured in {', '.join(fault['fix_versions']) or 'no version'}"
        for one in packages
        for fault in one.get("vulns", [])
    ]


def list_parts() -> None:
    """Write the licences of the packages of .venv, and a bill of materials (CycloneDX) of the pinned ones."""
    python = ROOT / ".venv" / "bin" / "python"
    licences = run("piplicenses", "--python", str(python), "--format", "csv")
    (OUT / "licences.csv").write_text(licences.stdout, encoding="utf-8")
    parts = run("cyclonedx_py", "requirements", "requirements.lock", "--of", "JSON")
    (OUT / "bill_of_materials.json").write_text(parts.stdout, encoding="utf-8")
    print(f"licences of {max(licences.stdout.count(chr(10)) - 1, 0)} packages and the bill of materials: {OUT}")


def main() -> int:
    """Run all of it. Return 1 if something is wrong."""
    OUT.mkdir(parents=True, exist_ok=True)
    wrong = [*audit_code(), *audit_packages()]
    list_parts()
    print("\n".join(wrong) or f"nothing is wrong; {len(EXPLAINED)} findings are explained in tools/audit.py")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
