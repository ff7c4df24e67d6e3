"""What a checkpoint may unpack to: a small file never takes much memory."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from moola_mlflow.core.errors import UserError
from moola_mlflow.models.files.bounds import check_stored, check_tensors
from moola_mlflow.models.files.checkpoint import load_checkpoint


def repacked(path: Path, compression: int) -> Path:
    """The same parts in another zip."""
    made = path.with_name("repacked.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return made


def test_a_checkpoint_whose_parts_are_packed_is_refused_before_they_are_read(tmp_path: Path) -> None:
    torch.save({"model_state_dict": {"w": torch.zeros(2_000_000)}}, tmp_path / "a.pt")
    packed = repacked(tmp_path / "a.pt", zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < 50_000
    with pytest.raises(UserError, match="its parts are compressed, which torch never does"):
        load_checkpoint(packed)
    check_stored(repacked(tmp_path / "a.pt", zipfile.ZIP_STORED))


def test_tensors_that_repeat_a_number_without_end_are_refused(tmp_path: Path) -> None:
    torch.save({"model_state_dict": {"w": torch.zeros(1).expand(10**10)}}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"its tensors show 40,000,000,000 bytes, and the file has"):
        load_checkpoint(tmp_path / "a.pt")
    check_tensors({"a": [torch.zeros(3)], "b": 1}, 12)


def test_a_zip_whose_parts_claim_more_than_it_has_is_refused(tmp_path: Path) -> None:
    torch.save({"model_state_dict": {"w": torch.zeros(10)}}, tmp_path / "a.pt")
    content = bytearray((tmp_path / "a.pt").read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = (10**9).to_bytes(4, "little")
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"claim|is not a readable checkpoint"):
        load_checkpoint(tmp_path / "a.pt")
