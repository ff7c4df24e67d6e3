"""Draw a picture as the bytes of a PNG file, here or in a worker process."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from moola_mlflow.core import command_workers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Drawable(Protocol):
    """What is needed to draw a picture: little enough to send to a worker."""

    def draw(self) -> Figure:
        """Return the figure."""
        ...


def draw_png(picture: Drawable) -> bytes:
    """Return the PNG file of a picture."""
    from moola_mlflow.reports.plots.figure import png_bytes  # a worker imports matplotlib, and draws

    return png_bytes(picture.draw())


def draw_all(pictures: Mapping[str, Drawable]) -> dict[str, Future[bytes]]:
    """Have the command's worker draw pictures, or draw them now if it has none; return PNG files by the same names."""
    workers = command_workers()
    return {name: workers.submit(draw_png, picture) for name, picture in pictures.items()}
