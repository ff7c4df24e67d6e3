"""What a document shows, run as a reader would: its commands in order in a fresh clone, its files put where it says."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
from harness import ROOT, Store
from warm_process import run_python

from moola_mlflow.bars.sample import generate_bars
from moola_mlflow.core.config.commands import COMMANDS
from moola_mlflow.core.config.resolve import dotted_keys

REAL_BARS = ROOT.parent / "shared" / "data" / "es_front_1min.parquet"
SMALL = {
    "": {"bars.sample_bars": "12000", "encoder.hidden": "4"},
    "pretrain": {"epochs": "1", "trainer.steps": "none"},
    "finetune": {
        "epochs": "1", "folds": "2", "repeats": "1", "cv.seeds": "", "finetune.unfreeze_at": "0",
        "cv.workers": "1",  # further processes would each import torch anew
    },
    "sweep": {"n_trials": "2", "workers": "1", "trainer.epochs": "1", "trainer.steps": "none"},
    "main": {"bars.sample_bars": "25000", "trainer.epochs": "1"},
    "promote": {"force": "true"},
}  # fmt: skip
"""Parameters by command (and for all) that make it small, whatever the document says; an empty value unsets."""
PAGES = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]
OWN_FILES = [page for page in PAGES if page.startswith("docs/how-to/own-")]
"""Pages that show one file whole, for the reader to make."""
PREPARED = [
    *("docs/reference/bars.md", "docs/reference/features.md", "docs/reference/labels.md"),
    *(
        "docs/how-to/bring-labels.md",
        "docs/how-to/pretrain.md",
        "docs/how-to/finetune.md",
        "docs/explanation/evidence.md",
    ),
    *(
        "docs/how-to/detect.md",
        "docs/how-to/evaluate.md",
        "docs/how-to/promote.md",
        "docs/how-to/remote.md",
        "docs/how-to/report.md",
    ),
    "docs/how-to/bring-labels.md",
]
"""Pages whose commands run in one folder that holds bars, labels and registered versions."""
ANNOTATE = ("docs/how-to/annotate.md", "docs/tutorials/label-windows.md")
TUTORIAL, TROUBLESHOOTING = "docs/tutorials/first-detector.md", "docs/how-to/troubleshooting.md"
RUN_BY = {
    "README.md": "test_readme.py",
    "docs/how-to/sweep.md": "test_sweep_docs.py",
    **dict.fromkeys(ANNOTATE, "test_annotate_page_docs.py"),
    **dict.fromkeys([TUTORIAL, TROUBLESHOOTING, *OWN_FILES, *PREPARED], "test_docs_commands.py"),
}
"""Which test runs a page's commands: all of them but those of ``NOT_RUN``."""
NOT_RUN = {
    r": (PIP_EXTRA_INDEX_URL=\S+ )?make ": "builds .venv from a package index; .ci/run does that in a fresh clone",
    r": \. \.venv/bin/activate$": "changes the reader's own shell; test_environment.py sources it",
    r": (git clone|pip install) ": "needs the network",
    r": (ssh|scp) ": "needs a second machine",
    r": export MLFLOW_TRACKING_URI=": "names a server of the reader's; test_outage.py has one of its own",
    r"README\.md: mlflow run \.$": "the tour: test_tour_command.py runs it",
    r"(README|annotate|label-windows)\.md: (mlflow run \. -e|moola) annotate ": "serves until Finish: "
    "test_annotate_page_docs.py starts each on these pages, labels windows and finishes",
    r"finetune\.md: .*finetune\.unlabelled bars$": "the bars here hold too few windows without a label; "
    "test_finetune_events.py gives it more",
    r": docker ": "needs Docker; test_docker.py looks at what the image copies and runs",
    r"remote\.md: (export (AWS|MLFLOW_S3|MLFLOW_ENABLE)_|moola sweep .* --storage )": "needs a database and a bucket: "
    "test_shared_server.py has both",
    r": mlflow ui$": "serves until it is stopped; test_readme.py starts it and asks it",
    r": mlflow server ": "serves until it is stopped; test_outage.py starts it, and stops it",
    r": mlflow models serve ": "serves until it is stopped; test_serving.py starts it and asks it",
    r": (curl|python examples/serve_client\.py) ": "asks that server: test_serving.py sends each of them",
    r": (mlflow run|moola) .*device[= ]cuda": "needs a GPU",
    r": torchrun --standalone ": "test_distributed.py starts 1, 2 and 4 processes so",
    r": torchrun --nnodes ": "needs several machines",
    r": python -m benchmarks\.": "up to hours, for figures of a machine; test_documented.py tries its words",
    r"remote\.md: moola sync .* --as-new$": "the store here knows the run; test_sync.py has one that lost it",
    r"remote\.md: moola sync .* --server ": "names a server of the reader's; test_foreign_folders.py starts one",
    r": optuna-dashboard ": "another project's program, in an environment of its own; tried by hand",
    r"/sweep\.md: .*/best_config\.yaml$": "the command of a sweep's note: test_sweep.py trains what it names",
    r"/sweep\.md: .* -P storage=postgresql:": "needs a PostgreSQL server: test_sweep_servers.py starts one",
    r"detect\.md: .* --register worth-": "trains what a benchmark reads; their like is run for other pages",
    r"detect\.md: .* --detect\.(precision|max_per_day|min_score) ": "needs an event detector: test_finetune_events.py",
    r"detect\.md: .* --follow( |$)": "needs an event detector, and lines that come: test_follow.py",
    r"bar-files\.md: moola data ": "reads a file of the reader's: test_forms.py reads one of each form",
    r"/pretrain\.md: .* --resume (new:)?<run id>": "needs an interrupted run: test_resume_command.py makes some",
    r"first-detector\.md: moola data --bars sample": "replaces the reader's file: test_docs_commands.py tries it",
    r"commands\.md: ": "the examples of --help: test_documented.py parses them, other pages run their like",
    r"evidence\.md: Warning: ": "what the command above it prints",
}
"""Commands that no test runs as they stand, as a pattern of ``page: command``, each with the one reason why not."""
PYTHON_BY = {
    **dict.fromkeys(["README.md", "docs/how-to/pretrain.md"], "test_readme.py"),
    **dict.fromkeys(["docs/reference/bars.md", "docs/explanation/sample.md"], "test_docs_commands.py"),
    **dict.fromkeys(
        ["docs/how-to/detect.md", "docs/how-to/promote.md", "docs/how-to/python.md", *OWN_FILES],
        "test_docs_commands.py",
    ),
    "docs/how-to/bring-labels.md": "test_docs_commands.py",
    "docs/reference/labels.md": "test_weak.py",
    "docs/explanation/events.md": "test_event_page.py",
    "docs/reference/features.md": "test_relativity.py",
}
"""Which test runs a page's blocks of Python."""
FENCES = ("", "bash")
PROGRAMS = ("mlflow", "moola", "python", "torchrun", "make", "pip", "git", "ssh", "scp", "curl", "export", ".")
PROGRAMS += ("docker", "optuna-dashboard")
"""What a line of an indented block begins with if it is a command; other such lines are output and formulas."""
EXIT_CODE = re.compile(r"# exit code (\d+)")


def blocks(name: str, language: str) -> list[str]:
    """Fenced blocks of a document in a language, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    return [content for tag, content in fenced if tag == language]


def files(name: str) -> dict[str, str]:
    """Files that a document shows whole, by their path: it stands in bold above the block."""
    shown = r"^\*\*`([\w/.-]+)`\*\*\n\n```\w*\n(.*?)^```$"
    return dict(re.findall(shown, (ROOT / name).read_text(), re.MULTILINE | re.DOTALL))


def shown_lines(name: str) -> Iterator[str]:
    """Lines of a document that are to be typed, in order: of fenced blocks (untagged or bash) all, of indented ones
    those that begin with a program. A line that a backslash ends goes on in the next."""
    fence, indented, blank = None, False, True
    for line in re.sub(r" *\\\n\s*", " ", (ROOT / name).read_text()).splitlines():
        if line.startswith("```"):
            fence = line[3:] if fence is None else None
        elif fence is not None:
            if fence in FENCES and line.strip():
                yield line
        else:
            indented = line.startswith("    ") and (blank or indented)
            typed = line.strip().removeprefix("$ ")
            if indented and typed.split(" ")[0] in PROGRAMS:
                yield typed
        blank = not line.strip()


def commands(name: str) -> list[tuple[str, int]]:
    """Commands of a document, without their comments, each with the exit code that its comment promises."""
    found = []
    for line in shown_lines(name):
        command, _, comment = line.partition("  #")
        promised = EXIT_CODE.match(f"#{comment}")
        found.append((command.strip(), int(promised[1]) if promised else 0))
    return found


def reasons(name: str, command: str) -> list[str]:
    """Patterns of ``NOT_RUN`` that a command of a document matches."""
    return [pattern for pattern in NOT_RUN if re.search(pattern, f"{name}: {command}")]


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
            shutil.copy2(ROOT / name, folder / name)
    for compiled in (ROOT / "moola_mlflow").rglob("__pycache__"):  # no two clones need compile the same code
        if (target := folder / compiled.relative_to(ROOT)).parent.is_dir():
            shutil.copytree(compiled, target, ignore=shutil.ignore_patterns("*.pyc.*"))  # another process writes those
    for name in ("my_bars.parquet", "nq.parquet", "NQ_2024.parquet"):
        generate_bars(12_000, 9).to_parquet(folder / name)
    for name, content in files(document).items() if document else ():
        (folder / name).write_text(content)
    return folder


def environment() -> dict[str, str]:
    """A shell with the project's environment active and nothing of MLflow exported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PYTHONPATH"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept["PATH"]])
    return {**kept, "PATH": path, "OMP_NUM_THREADS": "1"}


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder to its end: a program of Python in a copy of a warm process, others as they are."""
    given = environment()
    program = Path(shutil.which(words[0], path=given["PATH"]) or words[0])
    if "--help" in words or "pytest" in words:  # what shows the script itself, and what imports everything anew
        return subprocess.run(words, cwd=folder, env=given, capture_output=True, text=True, timeout=600)
    if program == Path(sys.executable) and words[1] != "-c":
        return run_python(words[1:], folder, given)
    if program.parent == Path(sys.executable).parent and program.name in ("mlflow", "moola"):
        return run_python([str(program), *words[1:]], folder, given)
    return subprocess.run(words, cwd=folder, env=given, capture_output=True, text=True, timeout=600)


def commands_of(name: str) -> list[str]:
    """The configurations that a command may have: a sweep has one for each stage."""
    return [command for command in COMMANDS if command == name or command.startswith(f"{name} of ")]


def reduced(line: str, code: int = 0) -> list[str]:
    """The words of a command line, with the parameters of ``SMALL`` in place of its own."""
    words = shlex.split(line)
    launcher = words[:2] == ["mlflow", "run"]
    if words[0] == "moola":
        words = [sys.executable, "-m", "moola_mlflow", *words[1:]]
    if words[2:3] == ["pytest"] or words[1:2] == ["my_bars.py"] or "--help" in words or len(words) == 3:
        return [sys.executable, *words[1:]]
    name = (words[words.index("-e") + 1] if "-e" in words else "main") if launcher else (words[3:4] or ["--help"])[0]
    read = {key for command in commands_of(name) for key in dotted_keys(COMMANDS[command])}
    small = {**SMALL[""], **({} if code else SMALL.get(name, {}))}
    small = {key: value for key, value in small.items() if "." not in key or key in read}
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
    FIRST_ID and SECOND_ID (of the newest fine-tunings), and $PWD (the folder)."""
    line = line.replace("$PWD", str(folder))
    if "RUN_ID" in line or "<run id>" in line:
        made = newest(folder, "pretrain")
        line = line.replace("RUN_ID", made[0].info.run_id)
        for one in made:
            line = line.replace("<run id>", one.info.run_id, 1)
    if "FIRST_ID" in line:
        second, first, *_ = newest(folder, "finetune")
        line = line.replace("FIRST_ID", first.info.run_id).replace("SECOND_ID", second.info.run_id)
    return line


def run_all(document: str, folder: Path) -> list[str]:
    """Run a document's commands in order, but for those of ``NOT_RUN``, and check each exit code (the launcher knows
    0 and 1 alone)."""
    said = []
    for line, code in commands(document):
        if reasons(document, line):
            continue
        done = run(reduced(filled_in(line, folder), code), folder)
        expected = min(code, 1) if line.startswith("mlflow") else code
        output = f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        if re.search(r"\bdoctor\b", line) and "things to do" in output:
            continue  # what it found wrong is on the machine that runs the tests, not in the document
        assert done.returncode == expected, f"{document}: {line}\nexit code {done.returncode}, not {expected}\n{output}"
        said.append(output)
    return said
