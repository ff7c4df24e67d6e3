"""Find the Chromium of this machine."""

from __future__ import annotations

import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """Return the path of the Chromium of this machine, None if there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)
