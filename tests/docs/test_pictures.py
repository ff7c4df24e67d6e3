"""Every picture of the documents is younger than the code that it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pictures
import pytest


def test_every_picture_was_made_of_the_code_as_it_is_now() -> None:
    found = pictures.stale()
    assert found == {}, f"make these again: {'; '.join(sorted(set(found.values())))}"


def test_the_record_names_no_picture_that_is_gone() -> None:
    assert set(pictures.read_record()) == set(pictures.pictures())
    assert len(pictures.pictures()) > 15


def test_every_file_that_decides_a_look_is_there_and_matters(tmp_path: Path) -> None:
    for number, maker in enumerate(pictures.MAKERS):
        for pattern in maker.shows:
            root = tmp_path / f"{number}-{re.sub('[^a-z0-9]', '-', pattern)}"
            for other in maker.shows:
                for path in pictures.ROOT.glob(other.partition("::")[0].partition("#")[0]):
                    copy = root / path.relative_to(pictures.ROOT)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    copy.write_bytes(path.read_bytes())
            assert pictures.shown(maker, root) == pictures.shown(maker)
            named, _, part = pattern.partition("::")
            named, _, word = named.partition("#")
            changed = next(root.glob(named))
            text = changed.read_text(encoding="utf-8") + f"\n{word}CHANGED = 1\n"
            changed.write_text(text, encoding="utf-8")
            if part:
                assert pictures.shown(maker, root) == pictures.shown(maker), "another part of the file"
                text = re.sub(rf"^(def {part}\(|{part} = )", rf"{part} = 1\n\1", text, count=1, flags=re.M)
                changed.write_text(text, encoding="utf-8")
            assert pictures.shown(maker, root) != pictures.shown(maker), pattern


def test_comments_docstrings_and_layout_change_no_picture() -> None:
    one = '"""Says é."""\n\nA = 1  # why\n\n\ndef f():\n    """Do."""\n    return "# no comment"\n'
    other = '"""Says\n\nmore."""\nA = 1\n"""What A is: ü."""; B = 2\ndef f():\n    # how\n    return "# no comment"\n'
    assert pictures.code_of(one) == 'A = 1\ndef f():\nreturn "# no comment"'
    assert pictures.code_of(other) == 'A = 1\n; B = 2\ndef f():\nreturn "# no comment"'


def test_a_picture_without_a_maker_is_refused() -> None:
    with pytest.raises(SystemExit, match="0 makers"):
        pictures.maker_of("new.png")
    with pytest.raises(SystemExit, match="0 makers"):
        pictures.maker_of("other/run.png")
