"""Where the checkout and the real bars are."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REAL_DATA = ROOT.parent / "shared" / "data"
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers"), str(ROOT / "tools")])
"""What a process needs to import what tests import."""
