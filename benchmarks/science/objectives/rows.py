"""The rows of the table."""

from __future__ import annotations

from benchmarks.science.objectives.readers import Reader
from benchmarks.science.objectives.variants import VARIANTS

PATH_FEATURES = "path features, no encoder"
SCRATCH = "random, trained on (scratch)"
SCRATCH_BESIDE = "random + path features, trained on (scratch)"
FEW = {"random": (60, 174), "path": (60, 174)}
ALL_COUNTS = (60, 174, 500)


def control(variant: str) -> str:
    """Return the variant at random initialisation that reads the same inputs."""
    return "random, path inputs" if VARIANTS[variant].channel else "random"


READERS = (
    *(Reader(name, encoder=name, against=control(name), counts=FEW.get(name, (174,))) for name in VARIANTS),
    Reader(PATH_FEATURES, path=True, counts=ALL_COUNTS),
    Reader("random + path features", encoder="random", path=True, counts=(60, 174)),
    Reader(
        "path + path features", encoder="path", path=True, against="random + path features", counts=ALL_COUNTS
    ),
    Reader("path, lr 4e-3 + path features", encoder="path, lr 4e-3", path=True, against="random + path features"),
    Reader(
        "path, all seeds + path features", encoder="path", path=True, ensemble=True, against="random + path features",
        counts=(60, 174),
    ),
    Reader(SCRATCH, encoder="random", trained_on=True, fresh=True),
    Reader(
        "masked random, trained on", encoder="masked random", trained_on=True, against=SCRATCH, frozen="masked random"
    ),
    Reader("path, trained on", encoder="path", trained_on=True, against=SCRATCH, frozen="path"),
    Reader(SCRATCH_BESIDE, encoder="random", path=True, trained_on=True, fresh=True),
    Reader(
        "path + path features, trained on", encoder="path", path=True, trained_on=True, against=SCRATCH_BESIDE,
        frozen="path + path features",
    ),
    Reader("path, pooled head", encoder="path", head="pooled"),
    Reader("rule + logistic regression", classical="rule"),
)  # fmt: skip
