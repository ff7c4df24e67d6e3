"""``moola NAME --key value``: arguments to a configuration, and outcomes to exit codes.

0 done; 1 failed while running; 2 bad input or configuration; 3 a gate not met; 130 and 143 interrupted and terminated.
"""

from __future__ import annotations

import functools
import importlib
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moola_mlflow import __version__, completion, runtime
from moola_mlflow.config import Config, allowed, dotted_keys, laid_over, read_preset, resolve
from moola_mlflow.errors import GateError, TrainingError, UserError, nearest, shown
from moola_mlflow.signals import Interrupted, Interrupts

# How long other processes of a training wait for the first one to say what is wrong.
SPEAK_S = 60
SHORT = {
    "bars": "bars.path",
    "features": "features.set",
    "epochs": "trainer.epochs",
    "batch_size": "trainer.batch_size",
    "lr": "optimizer.lr",
    "device": "runtime.device",
    "seed": "trainer.seed",
    "n": "labels.n",
    "labels": "labels.path",
    "encoder": "finetune.encoder",
    "freeze_encoder": "finetune.freeze",
    "folds": "cv.folds",
    "repeats": "cv.repeats",
    "seeds": "cv.seeds",
    "register": "registry.name",
    "gates": "gates.mode",
    "detector": "detect.detector",
    "resume": "tracking.resume",
    "n_trials": "sweep.n_trials",
    "workers": "sweep.workers",
    "study": "sweep.study",
    "storage": "sweep.storage",
}
"""Short parameters and the dotted keys they stand for."""

ARGUMENTS = {
    "out": "Where to write the result.",
    "fix": "true: do the cures that need no choice, such as closing runs whose process is gone [false]",
    "run_dir": "The folder of a run that the store lacks a part of: .moola/runs/RUN_ID. The name may be left out.",
    "head": "Keep only the first so many bars.",
    "config": "A preset: a YAML file of sections and keys.",
    "base": "The preset that is varied; the keys of config are laid over it.",
    "model": "A registered model; moola-detector where none is given.",
    "version": "Its version: a number or an alias; candidate where none is given, previous to roll back.",
    "alias": "The alias to move; champion where none is given.",
    "force": "true promotes a version that misses gates, and says so on it.",
    "run_id": "A pretrain run, or a finetune run whose pretrain run is then reported on.",
    "run_ids": "Two to eight runs of one stage, separated by commas; differences are to the first.",
}
"""Parameters of a command that are not keys of the configuration."""


@dataclass(frozen=True)
class EntryPoint:
    """One command: what it does, its short parameters, and its default preset."""

    summary: str
    parameters: tuple[str, ...]
    config: str = ""
    example: str = ""
    base: str = ""
    lone: str = ""
    """The parameter whose name may be left out."""
    underlay: bool = False
    """Whether a preset of one's own lies over the default one: it then need not repeat what the command needs."""


ENTRY_POINTS = {
    "main": EntryPoint(
        "the tour: every command once on sample bars, in under five minutes",
        ("seed",),
        config="configs/tour.yaml",
        example="mlflow run .",
    ),
    "data": EntryPoint(
        "read, check and canonicalise bars; write one parquet",
        ("bars", "out", "head"),
        example="moola data --bars my_bars.csv --bars.timezone America/New_York --out bars.parquet",
    ),
    "features": EntryPoint(
        "feature quality report of a bars file",
        ("bars", "features", "encoder"),
        example="moola features --bars bars.parquet --features relativity12",
    ),
    "label": EntryPoint(
        "weak labels from bars, by a rule",
        ("bars", "n", "out", "seed"),
        example="moola label --bars bars.parquet --bars.instrument front --n 174 --out labels.parquet",
    ),
    "pretrain": EntryPoint(
        "train an encoder on bars and register it",
        ("bars", "config", "epochs", "batch_size", "lr", "seed", "device", "resume", "register", "gates"),
        config="configs/stones.yaml",
        example="moola pretrain --bars bars.parquet --bars.instrument front --epochs 20 --encoder.hidden 64",
    ),
    "finetune": EntryPoint(
        "cross-validate a detector on labelled windows beside its baselines, and register it",
        (
            *("labels", "config", "encoder", "freeze_encoder", "epochs", "batch_size", "lr", "folds", "repeats"),
            *("seed", "seeds", "device", "register", "gates"),
        ),
        config="configs/finetune.yaml",
        underlay=True,
        example="moola finetune --labels labels.parquet --encoder models:/moola-encoder@candidate --repeats 3",
    ),
    "sweep": EntryPoint(
        "search batch size, learning rate or any other key with Optuna, each trial a child run",
        ("config", "base", "n_trials", "workers", "study", "storage", "bars", "labels", "encoder", "device"),
        config="configs/sweep.yaml",
        example="moola sweep --n_trials 40 --workers 4 --base configs/path.yaml",
        base="configs/stones.yaml",
    ),
    "promote": EntryPoint(
        "check the gates of a registered version and move an alias to it",
        ("model", "version", "alias", "force", "config"),
        config="configs/gates.yaml",
        example="moola promote --model moola-detector --version 3; back again: --version previous",
    ),
    "detect": EntryPoint(
        "scan bars with a registered detector: a table of found patterns, charts of the best",
        ("bars", "detector", "out"),
        example="moola detect --bars bars.parquet --bars.instrument front --detector models:/moola-detector@champion",
    ),
    "report": EntryPoint(
        "Markdown and self-contained HTML report of a pretrain run and its fine-tuning runs",
        ("run_id", "out"),
        example="moola report --run_id 0123456789abcdef0123456789abcdef --out report",
    ),
    "compare": EntryPoint(
        "two or more runs side by side: parameters that differ, metrics, curves, paired differences",
        ("run_ids", "out"),
        example="moola compare --run_ids 0123456789abcdef0123456789abcdef,fedcba9876543210fedcba9876543210",
    ),
    "sync": EntryPoint(
        "send to the store what it missed of a run while it did not answer",
        ("run_dir",),
        example="moola sync .moola/runs/RUN_ID",
        lone="run_dir",
    ),
    "doctor": EntryPoint(
        "look at environment, store, runs and aliases, and say what to do",
        ("fix",),
        example="moola doctor --fix true",
    ),
}


def main(argv: Sequence[str] | None = None, interrupts: Interrupts | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] == "completion":
        print(completion.bash({name: entry.parameters for name, entry in ENTRY_POINTS.items()}, dotted_keys()), end="")
        return 0
    if words[0] in ("-V", "--version"):
        print(f"moola_mlflow {__version__}")
        return 0
    if {"-h", "--help"} & set(words[1:]) and words[0] in ENTRY_POINTS:
        print(help_text(words[0]))
        return 0
    try:
        return _run(words, interrupts or Interrupts())
    except Interrupted as e:
        _say(f"interrupted by {e}")
        if runtime.launched():  # before its run was adopted, which nobody else will mark as killed
            _record(words[0], e)
        return e.exit_code
    except UserError as e:
        if runtime.rank():  # the first process has the same mistake before it, and is to record it before all are ended
            time.sleep(SPEAK_S)
        _say(str(e))
        return 2
    except TrainingError as e:
        _say(str(e))
        return 1
    except GateError as e:
        _say(str(e))
        return 3
    except ModuleNotFoundError as e:
        _say(f"this Python ({sys.executable}) lacks the package '{e.name}'; {_cure(e.name)}")
        return 1
    except Exception as e:
        # A store that fails in the middle of a run is no bug of ours; its words come from deep inside and suffice.
        if not _is_a_stores(e):
            print(shown(traceback.format_exc()), file=sys.stderr, end="")
        _say(f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}")
        return 1


def _say(message: str) -> None:
    print(f"moola: {shown(message)}", file=sys.stderr, flush=True)


def _cure(package: str | None) -> str:
    if package and package.startswith("psycopg"):
        return "a PostgreSQL store needs it: pip install -e '.[postgresql]'"
    return "activate the project's environment (. .venv/bin/activate), make it with 'make setup', or pip install -e ."


def _is_a_stores(error: Exception) -> bool:
    return isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("mlflow", "sqlalchemy")


def _run(words: list[str], interrupts: Interrupts) -> int:
    name = words[0]
    if name not in ENTRY_POINTS:
        raise UserError(f"unknown command '{name}'{nearest(name, ENTRY_POINTS)} Commands: {', '.join(ENTRY_POINTS)}")
    try:
        config, preset, arguments = parse(name, words[1:])
    except UserError as e:
        _record(name, e)
        raise
    runtime.prepare_environment(config.runtime.threads)
    command = importlib.import_module(f"moola_mlflow.commands.{name}")
    command.run(config, preset, interrupts, **arguments)
    return 0


def _record(stage: str, error: BaseException) -> None:
    """A command that ends before its run begins leaves one that says why, as the launcher's does."""
    if runtime.rank():  # of several processes the first one tells
        return
    runtime.prepare_environment()
    from moola_mlflow import tracking  # imported late: mlflow takes seconds

    try:
        tracking.record(stage, error)
    except UserError as e:  # the message about the user's key stays the last one
        _say(f"this could not be recorded: {e}")


def parse(name: str, words: Sequence[str]) -> tuple[Config, str, dict[str, str]]:
    """Return the configuration, the preset's name and the command's own arguments.

    Order: preset < dotted key < short parameter; an empty value is unset.

    Raises: UserError naming the key, the value, what is allowed and the nearest valid key.
    """
    entry = ENTRY_POINTS[name]
    if entry.lone and words and not words[0].startswith("--"):
        words = [f"--{entry.lone}", *words]
    given = {key: value for key, value in _pairs(words).items() if value != ""}
    known = {*entry.parameters, "config", *dotted_keys()}
    for key, value in given.items():
        if key not in known:
            raise UserError(
                f"unknown parameter '{key}' (value '{value}'){nearest(key, known)} "
                f"Every key of this command: moola {name} --help"
            )
    named = given.get("config") or entry.config
    path = str(shipped(named)) if named else ""
    overrides: dict[str, Any] = {key: value for key, value in given.items() if "." in key}
    overrides |= {SHORT[key]: value for key, value in given.items() if key in SHORT}
    preset = read_preset(path) if path else {}
    arguments = {key: given[key] for key in entry.parameters if key in given and key in ARGUMENTS and key != "config"}
    if entry.underlay and path:
        preset = laid_over(read_preset(shipped(entry.config)), preset)
    if entry.base:
        path = arguments["base"] = str(shipped(given.get("base") or entry.base))
        preset = laid_over(read_preset(path), preset)
    return resolve(preset, overrides), Path(path).stem if path else "default", arguments


def shipped(preset: str) -> Path:
    """Return a preset in the working folder, or else in the checkout that holds this package."""
    here, there = Path(preset), Path(__file__).resolve().parent.parent / preset
    return there if there.is_file() and not here.is_file() else here


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """Read ``--key value`` and ``--key=value``; the later of two equal keys wins."""
    pairs: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise UserError(f"'{word}' is not a parameter; write --key value, for example --epochs 20")
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or (rest[0].startswith("--") and not _is_number(rest[0])):
                raise UserError(f"parameter '--{key}' has no value; write --{key} VALUE")
            value = rest.pop(0)
        pairs[key.replace("-", "_")] = value
    return pairs


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def overview() -> str:
    """Return the map of commands."""
    width = max(map(len, ENTRY_POINTS))
    rows = [f"  {name:<{width}}  {entry.summary}" for name, entry in ENTRY_POINTS.items()]
    return "\n".join(
        ["moola: from one-minute bars to a registered encoder, every number tracked", "", *rows, "",
         "moola NAME --help shows a command's parameters; mlflow run . -e NAME -P key=value does the same.",
         "source <(moola completion) completes commands and keys in bash."]
    )  # fmt: skip


def help_text(name: str) -> str:
    """Return a command's parameters with their meaning and default, made from the configuration itself."""
    entry, fields = ENTRY_POINTS[name], dotted_keys()
    presets = [read_preset(path) for name in (entry.base, entry.config) if name and (path := shipped(name)).is_file()]
    defaults = resolve(functools.reduce(laid_over, presets, {}), {}).flat()
    lines = [f"moola {name}: {entry.summary}", "", f"Example: {entry.example}", "", "Short parameters:"]
    for key in entry.parameters:
        if key in SHORT:
            dotted = SHORT[key]
            lines.append(f"  --{key:<12} {fields[dotted].description} [{dotted}; {_shown(defaults[dotted])}]")
        else:
            preset = {"config": entry.config, "base": entry.base}.get(key, "")
            default = f" [{preset}]" if preset else ""
            lines.append(f"  --{key:<12} {ARGUMENTS[key]}{default}")
    lines += ["", "Every key of the configuration (default):"]
    lines += [
        f"  --{key:<28} {field.description} ({allowed(field)}; {_shown(defaults[key])})"
        for key, field in fields.items()
    ]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
