"""Bounds on what a checkpoint may unpack to: a file of kilobytes must not fill the memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch


def check_stored(path: Path) -> None:
    """Refuse a checkpoint whose parts are packed, or claim more bytes than the file has. torch stores them as they are.

    Raises: ValueError; OSError.
    """
    if not zipfile.is_zipfile(path):  # files of early versions of torch
        return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise ValueError("its parts are compressed, which torch never does")
    if (claimed := sum(part.file_size for part in parts)) > path.stat().st_size:
        raise ValueError(f"its parts claim {claimed:,} bytes, and the file has {path.stat().st_size:,}")


def check_tensors(state: Any, size: int) -> None:
    """Refuse tensors that show more bytes than the file holds: one number may be repeated without end.

    Raises: ValueError.
    """
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(state))
    if claimed > size:
        raise ValueError(f"its tensors show {claimed:,} bytes, and the file has {size:,}")


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    waiting = [state]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
