"""Says what each picture of docs/images shows, and records the state of that code when a picture is made.

python tools/pictures.py      lists the pictures that are older than what they show, with the command for each

The tools that make pictures call ``record``. tests/docs/test_pictures.py compares the record with the code of today.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
RECORD = IMAGES / "pictures.json"


@dataclass(frozen=True)
class Maker:
    """Pictures of one command, and the files that decide how they look.

    ``pictures`` and ``shows`` are patterns below ``docs/images`` and below the root. ``FILE#WORD`` means the lines of a
    file that start with a word, ``FILE::NAME`` a function or a constant of a Python file.
    """

    command: str
    pictures: str
    shows: tuple[str, ...]


MLFLOW, PLOTLY = "requirements.lock#mlflow==", "requirements.lock#plotly=="
UI = "python tools/screenshots.py"
VIEWS = "moola_mlflow/tracking/ui.py"
REPORTS = "moola_mlflow/reports"
CANDLES = (
    "tools/candle_pictures.py",
    f"{REPORTS}/plots/candles.py",
    "moola_mlflow/bars/sample.py",
    "requirements.lock#matplotlib==",
)
NOTE = tuple(f"{REPORTS}/pretrain_results.py::{name}" for name in ("pretrain_note", "_next", "_levels", "_gate_note"))
MAKERS = (
    Maker("python tools/annotate_pictures.py", "annotate*.png", ("moola_mlflow/annotate/page/*", PLOTLY)),
    Maker(UI, "runs.png", (f"{VIEWS}::COLUMNS", f"{VIEWS}::VIEWS", f"{VIEWS}::_packed", MLFLOW)),
    Maker(UI, "run.png", (*NOTE, "configs/rules.yaml", MLFLOW)),
    Maker(UI, "artifacts.png", (f"{REPORTS}/plots/training.py", f"{REPORTS}/plots/figure.py", MLFLOW)),
    Maker(UI, "model.png", (f"{VIEWS}::describe", f"{VIEWS}::version_text", MLFLOW)),
    Maker(
        "python tools/pattern_picture.py", "patterns.png",
        ("tools/pattern_picture.py", *CANDLES),
    ),
    Maker(
        "python tools/rule_pictures.py", "rules/*.png",
        ("tools/rule_pictures.py", f"{REPORTS}/rules_report.py", "moola_mlflow/labels/rules/*.py",
         "moola_mlflow/labels/surge_rule.py", *CANDLES),
    ),
)  # fmt: skip


def maker_of(name: str) -> Maker:
    """Return the maker of a picture, by its name below ``docs/images``."""
    found = [maker for maker in MAKERS if Path(name).match(maker.pictures) and name.count("/") == _depth(maker)]
    if len(found) != 1:
        raise SystemExit(f"{name}: {len(found)} makers in tools/pictures.py; allowed: one")
    return found[0]


def _depth(maker: Maker) -> int:
    return maker.pictures.count("/")


def pictures() -> list[str]:
    """Return the names of all pictures below ``docs/images``."""
    files = (path for path in IMAGES.rglob("*") if path.is_file() and path != RECORD)
    return sorted(path.relative_to(IMAGES).as_posix() for path in files)


def shown(maker: Maker, root: Path = ROOT) -> str:
    """Return the SHA-256 of what pictures show: files as text, Python without its comments and docstrings."""
    digest = hashlib.sha256()
    for pattern in maker.shows:
        path_pattern, _, part = pattern.partition("::")
        path_pattern, _, word = path_pattern.partition("#")
        paths = sorted(path for path in root.glob(path_pattern) if path.is_file())
        if not paths:
            raise SystemExit(f"tools/pictures.py: no file is {pattern}")
        for path in paths:
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".py":
                text = code_of(_part(text, part) if part else text)
            lines = [line for line in text.splitlines() if line.startswith(word)]
            digest.update("\n".join([path.relative_to(root).as_posix(), *lines, ""]).encode())
    return digest.hexdigest()


def _part(text: str, name: str) -> str:
    """Return a function, a class or a constant of a Python file, as it is written."""
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        names = [getattr(node, "name", ""), *(target.id for target in targets if isinstance(target, ast.Name))]
        if name in names:
            return ast.get_source_segment(text, node) or ""
    raise SystemExit(f"tools/pictures.py: nothing is called {name}")


def code_of(text: str) -> str:
    """Return Python code without comments, docstrings and layout: none of them changes a picture."""
    lines = text.splitlines(keepends=True)
    cuts = [
        (token.start, token.end)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    cuts += [
        (_place(lines, node.lineno, node.col_offset), _end(lines, node))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    for (row, column), (last, end) in sorted(cuts, reverse=True):
        kept = lines[row - 1][:column], lines[last - 1][end:]
        lines[row - 1 : last] = ["".join(kept)]
    return "\n".join(" ".join(line.split()) for line in "".join(lines).splitlines() if line.strip())


def _place(lines: Sequence[str], row: int, num_bytes: int) -> tuple[int, int]:
    """Return a place as tokenize counts it, in characters; ast counts bytes."""
    return row, len(lines[row - 1].encode()[:num_bytes].decode())


def _end(lines: Sequence[str], node: ast.Expr) -> tuple[int, int]:
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    return _place(lines, node.end_lineno, node.end_col_offset)


AT_START = {maker: shown(maker) for maker in MAKERS}
"""What was there when the tool started. A change while it works is not in its pictures."""


def record(*names: str) -> None:
    """Note that pictures are made, of the code as it was when the tool started."""
    noted = read_record()
    for name in names:
        noted[name] = state(name) | {"shows_sha256": AT_START[maker_of(name)]}
    there = {name: noted[name] for name in pictures() if name in noted}
    RECORD.write_text(json.dumps(there, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def state(name: str) -> dict[str, str]:
    """Return what the record says of a picture that was made now."""
    maker = maker_of(name)
    picture = hashlib.sha256((IMAGES / name).read_bytes()).hexdigest()
    return {"command": maker.command, "picture_sha256": picture, "shows_sha256": shown(maker)}


def read_record() -> dict[str, dict[str, str]]:
    """Return what is noted of each picture."""
    noted: dict[str, dict[str, str]] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return noted


def stale() -> dict[str, str]:
    """Return the pictures that are older than what they show, or are not those of the record, and their commands."""
    noted = read_record()
    return {name: state(name)["command"] for name in pictures() if noted.get(name) != state(name)}


def main() -> None:
    """List the pictures to make again."""
    found = stale()
    for name, command in found.items():
        print(f"{name}: {command}")
    if not found:
        print("Every picture is younger than what it shows.")


if __name__ == "__main__":
    main()
