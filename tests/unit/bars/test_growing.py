"""Lines of a file that grows and of a stream come once, whole, and in order; a file that is replaced is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moola_mlflow.bars import growing
from moola_mlflow.bars.growing import GrowingFile, LineStream
from moola_mlflow.core.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "live.csv"
    path.write_text("time,open\n1,2\n3,")
    return path


def append(path: Path, text: str) -> None:
    with path.open("a") as f:
        f.write(text)


def test_a_line_without_its_end_waits_for_it(path: Path) -> None:
    file = GrowingFile(path)
    assert file.lines() == ["time,open", "1,2"]
    assert (file.lines(), file.unfinished) == ([], "3,")
    append(path, "4\r\n\n5,6")
    assert (file.lines(), file.unfinished) == (["3,4"], "5,6")
    append(path, "\n")
    assert (file.lines(), file.unfinished) == (["5,6"], "")
    file.close()


def test_a_long_file_comes_in_pieces_and_no_line_is_cut(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "CHUNK_BYTES", 7)
    wanted = [f"{i},{i * i}" for i in range(50)]
    path.write_text("\n".join(wanted) + "\n")
    file, found = GrowingFile(path), list[str]()
    while len(found) < 50:
        found += file.lines()
    assert found == wanted


def test_a_file_that_becomes_shorter_is_replaced_written_anew_or_gone_is_refused(path: Path, tmp_path: Path) -> None:
    def reading() -> GrowingFile:
        path.write_text("time,open\n1,2\n3,4\n")
        file = GrowingFile(path)
        assert len(file.lines()) == 3
        return file

    file = reading()
    path.write_text("time,open\n")
    with pytest.raises(UserError, match=r"became shorter \(10 bytes, 18 were read\) while it was followed"):
        file.lines()
    file = reading()
    path.write_text("time,open\n7,8\n9,9\n3,4\n5,6\n")
    with pytest.raises(UserError, match="was written anew while it was followed"):
        file.lines()
    file = reading()
    (tmp_path / "new").write_text("time,open\n")
    os.replace(tmp_path / "new", path)
    with pytest.raises(UserError, match="was replaced by another file"):
        file.lines()
    file = reading()
    path.unlink()
    with pytest.raises(UserError, match="is gone while it was followed"):
        file.lines()


def test_the_rest_of_a_file_that_was_renamed_is_read_before_it_is_refused(path: Path) -> None:
    file = GrowingFile(path)
    file.lines()
    append(path, "4\n")
    path.rename(path.with_suffix(".old"))
    path.write_text("time,open\n")
    assert file.lines() == ["3,4"]
    with pytest.raises(UserError, match="was replaced"):
        file.lines()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: No such file or directory; give the file that grows, or -"):
        GrowingFile(tmp_path / "nothing.csv")


def test_a_stream_gives_whole_lines_and_its_last_line_at_its_end() -> None:
    reader, writer = os.pipe()
    stream = LineStream(reader, wait_s=0.0)
    assert stream.lines() == []
    os.write(writer, b"a,b\n1,")
    assert stream.lines() == ["a,b"]
    os.write(writer, b"2\n3,4")
    os.close(writer)
    assert stream.lines() == ["1,2"]
    assert not stream.ended
    assert stream.lines() == ["3,4"]
    assert stream.ended
    assert stream.lines() == []
    os.close(reader)
