"""Draw a picture as the bytes of a PNG file, here or in a worker process."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 110


class Drawable(Protocol):
    """What is needed to draw a picture: little enough to send to a worker."""

    def draw(self) -> Figure:
        """Return the figure."""
        ...


def draw_png(picture: Drawable) -> bytes:
    """Return the PNG file of a picture."""
    file = io.BytesIO()
    picture.draw().savefig(file, dpi=DPI, format="png")
    return file.getvalue()
