"""Write the commands that notes and reports name, with every key that the next command would not have by itself."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from moola_mlflow.core import (
    CommandKeys,
    DetectorLimits,
    FinetuneKeys,
    PretrainKeys,
    UserError,
    dotted_keys,
    find_preset,
    make_config,
    markdown_code,
    project_names,
    read_preset,
)

WAITING = ", by moola sync "
RECOMMENDED = "configs/rules.yaml"
"""The preset whose encoders give better detectors than the price-path features."""
PHASES = {"frozen": "configs/finetune.yaml", "unfrozen": "configs/phase2.yaml"}
"""Preset of each phase of fine-tuning."""
SHORT = {
    "bars.path": "bars", "labels.path": "labels", "finetune.encoder": "encoder", "registry.name": "register",
    "trainer.epochs": "epochs", "trainer.seed": "seed", "cv.repeats": "repeats", "project.name": "project",
}  # fmt: skip
"""Keys that read better by their short parameter."""
DATA = ("bars", "windows", "split", "project", "registry")
"""Sections that any pre-training on the same bars keeps."""
TRAINED = (*DATA, "features", "encoder", "objective", "optimizer", "schedule", "trainer")
"""Sections that the same pre-training keeps."""
TUNED = ("labels", "features", "windows", "bars", "cv", "project", "registry")
"""Sections that any fine-tuning on the same labels keeps."""


def waiting_uri(name: str, folder: Path) -> str:
    """Return what stands for the URI of a version that the store did not take yet.

    >>> waiting_uri("moola-detector", Path(".moola/runs/1"))
    'moola-detector, by moola sync .moola/runs/1'
    """
    return f"{name}{WAITING}{folder}"


def unregistered_step(uri: str) -> str:
    """Return what to do for a detector that meets its gates and has no version.

    >>> unregistered_step("moola-detector, by moola sync .moola/runs/1")
    'Next: `moola sync .moola/runs/1` registers this detector as soon as the store answers; then promote it'
    """
    _, waits, folder = uri.partition(WAITING)
    if waits:
        command = markdown_code(f"moola sync {shlex.quote(folder)}")
        return f"Next: {command} registers this detector as soon as the store answers; then promote it"
    return "Next: this detector is not registered; run the same command with `-P register=moola-detector`"


def launcher_command(entry: str, parameters: Mapping[str, Any]) -> str:
    """Return the command that runs an entry point. Values are quoted for the shell."""
    pairs = (f"-P {key}={shlex.quote(_text(value))}" for key, value in parameters.items())
    return " ".join([f"mlflow run . -e {entry}", *pairs])


def carried(
    config: Mapping[str, Any], keys: type[CommandKeys], sections: Collection[str], preset: str = ""
) -> dict[str, Any]:
    """Return the parameters that the next command needs to have the values of a run in some sections.

    A key whose value the command has by itself, from the preset or as the default, is left out. ``config`` is the
    run's configuration; a section that it lacks carries nothing.
    """
    given = {name: dict(config[name]) for name in sections if isinstance(config.get(name), Mapping)}
    project = str(given.get("project", {}).get("name") or "")
    try:
        below = read_preset(find_preset(preset)) if preset else {}
    except UserError:  # a folder that is no checkout
        below = {}
    flat = {f"{section}.{key}": value for section, values in below.items() for key, value in values.items()}
    own = make_config(keys, below, project_names(project, dotted_keys(keys), flat, {})).flat()
    found = {f"{section}.{key}": value for section, values in given.items() for key, value in values.items()}
    return {
        SHORT.get(key, key): value
        for key, value in found.items()
        if key in own and own[key] != value and (key, value) != ("registry.name", "none")
    }


def better_encoder_command(config: Mapping[str, Any], further: Mapping[str, Any]) -> str:
    """Return the command that may make a better encoder on a run's bars: the recommended preset and further keys.

    A run that was trained on rules already keeps its network and its training too.
    """
    rules = (config.get("objective") or {}).get("name") == "rules"
    kept = carried(config, PretrainKeys, TRAINED if rules else DATA, RECOMMENDED)
    return launcher_command("pretrain", {"config": RECOMMENDED, **kept, **further})


def finetune_command(encoder: str, config: Mapping[str, Any], kind: str = "frozen", **further: Any) -> str:
    """Return the command that fine-tunes an encoder on the labels, and for the project, of another run.

    ``config``: its configuration. One of a pre-training gives the project alone. ``kind``: the phase.
    """
    preset = PHASES[kind]
    kept = carried(config, FinetuneKeys, TUNED if "labels" in config else ("project",), preset)
    named = {"config": preset} if kind != "frozen" else {}
    return launcher_command("finetune", {"encoder": encoder, **named, **kept, **further})


def repeat_command(encoder: str, config: Mapping[str, Any], kind: str, **further: Any) -> str:
    """Return the command that does a run's fine-tuning again, with further keys."""
    kept = carried(config, FinetuneKeys, (*TUNED, "finetune", "trainer", "optimizer", "encoder"), PHASES[kind])
    kept.pop("encoder", None)
    named = {"config": PHASES[kind]} if kind != "frozen" else {}
    return launcher_command("finetune", {"encoder": encoder, **named, **kept, **further})


def promote_command(uri: str, config: Mapping[str, Any]) -> str:
    """Return the command that promotes a version, with the limits and the project of the run that made it."""
    model, _, version = uri.removeprefix("models:/").rpartition("/")
    limits = DetectorLimits().model_dump()
    gates = {f"gates.{key}": value for key, value in (config.get("gates") or {}).items()
             if key in limits and limits[key] != value}  # fmt: skip
    project = str((config.get("project") or {}).get("name") or "")
    named = {"project": project} if project else {}
    return launcher_command("promote", {"model": model, "version": version, **named, **gates})


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(value)
