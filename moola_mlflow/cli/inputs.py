"""Look for the files that a command reads before its run begins: a path that was mistyped makes no run."""

from __future__ import annotations

from pathlib import Path

from moola_mlflow.core import CommandKeys, UserError

READ_BARS = ("data", "features", "rules", "pretrain", "label", "detect", "evaluate")
"""Commands that read bars whatever their keys say."""
READ_LABELS = ("finetune", "evaluate")
"""Commands whose labels are parquet files."""
MODELS = {"finetune.encoder": "encoder", "detect.detector": "detector"}
"""Keys that name a model: in a store, or on disk."""
ELSEWHERE = ("models:/", "runs:/")


def check_inputs(name: str, config: CommandKeys) -> None:
    """Refuse files that are not there. Only names are looked at; what the files hold is checked when they are read.

    Raises: UserError, the same as when they are read.
    """
    given = config.flat()
    bars, labels = str(given.get("bars.path", "")), str(given.get("labels.path", ""))
    if name in READ_BARS and not given.get("detect.follow") and _is_on_disk(bars):
        from moola_mlflow.bars import find_files, is_store  # pandas takes a second to import

        if not is_store(bars):
            find_files(bars)
    if name in READ_LABELS and _is_on_disk(labels):
        from moola_mlflow.labels import check_label_files

        check_label_files(labels)
    for key, kind in MODELS.items():
        for path in str(given.get(key, "")).split(","):
            if _is_on_disk(path.strip()) and not Path(path.strip()).exists():
                raise UserError(
                    f"{kind} '{path.strip()}' does not exist; give models:/moola-{kind}@champion, "
                    f"models:/moola-{kind}/3, runs:/<run id>/{kind}, or a folder"
                )


def _is_on_disk(path: str) -> bool:
    return path not in ("", "-", "none", "sample") and not path.startswith(ELSEWHERE) and "://" not in path
