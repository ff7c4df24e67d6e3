"""``moola presets``: list the presets that come with the package, print one, or write them to a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moola_mlflow.core import UserError, find_preset, shipped_presets

USAGE = """\
moola presets                  list the presets that come with the package
moola presets NAME             print one
moola presets --out FOLDER     write all of them to a folder; no file there is overwritten

Use one by its name, moola pretrain --config rules, or by the path of a copy that you changed."""


def presets_text(words: Sequence[str]) -> str:
    """Return what the command prints, after it has written the files that it was asked for.

    Raises: UserError for an unknown preset, for words that it does not take, or for a file that exists.
    """
    if not words:
        return _listing()
    if words[0] == "--out" and len(words) == 2:
        return _write(Path(words[1]).expanduser())
    if len(words) == 1 and not words[0].startswith("-"):
        return find_preset(words[0]).read_text(encoding="utf-8").rstrip()
    raise UserError(f"presets does not take '{' '.join(words)}'; write one of:\n{USAGE}")


def _listing() -> str:
    """Return each preset with the comment at its top."""
    shipped = shipped_presets()
    width = max(map(len, shipped))
    return "\n".join(f"{name:<{width}}  {_comment(path)}" for name, path in shipped.items())


def _comment(path: Path) -> str:
    """Return the comment at the top of a file in one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    above = lines[: next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))]
    return " ".join(line.removeprefix("#").strip() for line in above)


def _write(folder: Path) -> str:
    shipped = shipped_presets()
    taken = [name for name, path in shipped.items() if (folder / path.name).exists()]
    if taken or (folder.exists() and not folder.is_dir()):
        held = f"holds {taken[0]}.yaml" if taken else "is a file"
        raise UserError(f"out='{folder}' {held}; give a new or empty folder, so that no file is overwritten")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in shipped.values():
            (folder / path.name).write_bytes(path.read_bytes())
    except OSError as e:
        raise UserError(f"out='{folder}' cannot be written: {e}; give a folder you may write to") from None
    return f"{len(shipped)} presets -> {folder.resolve()}"
