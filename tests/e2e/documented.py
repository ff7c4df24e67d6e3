"""What a document shows, run as a reader would: its commands in order in a fresh clone, its files put where it says."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import mlflow
from harness import ROOT, Store

from moola_mlflow.synthetic import generate

REAL_BARS = ROOT.parent / "shared" / "data" / "es_front_1min.parquet"
SMALL = {
    "": {"bars.sample_bars": "12000", "encoder.hidden": "4"},
    "pretrain": {"epochs": "1"},
    "finetune": {"epochs": "1", "folds": "2", "repeats": "1", "cv.seeds": "", "finetune.unfreeze_at": "0"},
    "sweep": {"n_trials": "2", "workers": "1", "trainer.epochs": "1"},
    "main": {"bars.sample_bars": "25000", "trainer.epochs": "1"},
    "promote": {"force": "true"},
}
"""Parameters by command (and for all) that make it small, whatever the document says; an empty value unsets."""
PROGRAMS = ("mlflow run ", "moola ", "python -m moola_mlflow ", "python -m pytest ", "python my_")
EXIT_CODE = re.compile(r"# exit code (\d+)")


def blocks(name: str, language: str = "") -> list[str]:
    """Fenced code blocks of a document, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    return [content for tag, content in fenced if tag == language]


def files(name: str) -> dict[str, str]:
    """Files that a document shows whole, by their path: it stands in bold above the block."""
    shown = r"^\*\*`([\w/.-]+)`\*\*\n\n```\w*\n(.*?)^```$"
    return dict(re.findall(shown, (ROOT / name).read_text(), re.MULTILINE | re.DOTALL))


def commands(name: str, *programs: str) -> list[tuple[str, int]]:
    """Command lines of a document, without their comments, each with the exit code that its comment promises."""
    found = []
    for line in (line for block in blocks(name) for line in block.splitlines()):
        command, _, comment = line.partition("  #")
        promised = EXIT_CODE.match(f"#{comment}")
        if line.startswith(programs or PROGRAMS):
            found.append((command.strip(), int(promised[1]) if promised else 0))
    return found


def clone(folder: Path, document: str = "") -> Path:
    """Put the files that git would clone into a folder, with the working tree's content, and those that a document
    shows or takes for granted."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    for name in ("my_bars.parquet", "nq.parquet", "NQ_2024.parquet"):
        generate(12_000, 9).to_parquet(folder / name)
    for name, content in files(document).items() if document else ():
        (folder / name).write_text(content)
    return folder


def environment() -> dict[str, str]:
    """A shell with the project's environment active and nothing of MLflow exported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PYTHONPATH"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1"}


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder to its end."""
    return subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=600)


def reduced(line: str, code: int = 0) -> list[str]:
    """The words of a command line, with the parameters of ``SMALL`` in place of its own."""
    words = shlex.split(line)
    launcher = words[0] == "mlflow"
    if words[0] == "moola":
        words = [sys.executable, "-m", "moola_mlflow", *words[1:]]
    if words[2:3] == ["pytest"] or words[1:2] == ["my_bars.py"] or "--help" in words or len(words) == 3:
        return [sys.executable, *words[1:]]
    name = (words[words.index("-e") + 1] if "-e" in words else "main") if launcher else (words[3:4] or ["--help"])[0]
    small = {**SMALL[""], **({} if code else SMALL.get(name, {}))}
    if launcher:
        given = dict(pair.split("=", 1) for flag, pair in itertools.pairwise(words) if flag == "-P")
        kept = [w for flag, w in zip(["", *words], words, strict=False) if flag != "-P" and w != "-P"]
        manager = [] if "--env-manager" in kept else ["--env-manager", "local"]
        return [*kept, *manager, *(w for key, value in {**given, **small}.items() for w in ("-P", f"{key}={value}"))]
    # The later of two equal parameters counts.
    return [*words, *(f"--{key}={value}" for key, value in small.items())]


def newest(folder: Path, stage: str = "") -> list[mlflow.entities.Run]:
    """Runs of the clone's default store, the newest first."""
    return [run for run in Store(folder).runs() if stage in ("", run.data.tags.get("moola.stage"))]


def filled_in(line: str, folder: Path) -> str:
    """The command with RUN_ID (of the newest pre-training), each <run id> (of the newest pre-trainings in turn),
    FIRST_ID and SECOND_ID (of the newest fine-tunings)."""
    if "RUN_ID" in line or "<run id>" in line:
        made = newest(folder, "pretrain")
        line = line.replace("RUN_ID", made[0].info.run_id)
        for one in made:
            line = line.replace("<run id>", one.info.run_id, 1)
    if "FIRST_ID" in line:
        second, first, *_ = newest(folder, "finetune")
        line = line.replace("FIRST_ID", first.info.run_id).replace("SECOND_ID", second.info.run_id)
    return line


def run_all(document: str, folder: Path, left_out: str = "") -> list[str]:
    """Run a document's commands in order and check each exit code (the launcher knows 0 and 1 alone)."""
    said = []
    for line, code in commands(document):
        if left_out and left_out in line:
            continue
        done = run(reduced(filled_in(line, folder), code), folder)
        expected = min(code, 1) if line.startswith("mlflow") else code
        output = f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        if re.search(r"\bdoctor\b", line) and "things to do" in output:
            continue  # what it found wrong is on the machine that runs the tests, not in the document
        assert done.returncode == expected, f"{document}: {line}\nexit code {done.returncode}, not {expected}\n{output}"
        said.append(output)
    return said
