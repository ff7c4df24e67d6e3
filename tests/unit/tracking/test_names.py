"""Names of tags, metrics and artifacts: one constant each, the files' own names, and no second spelling."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from moola_mlflow.core import SweepConfig
from moola_mlflow.models import DETECTOR_CARD, ENCODER_CARD
from moola_mlflow.tracking import Artifacts, EventBaselines, Metrics, Tags, VersionTags

PACKAGE = Path(__file__).parents[3] / "moola_mlflow"
NAMES = {PACKAGE / "core" / "names.py", PACKAGE / "tracking" / "names.py"}
FIXED = {PACKAGE / "core" / "config" / "sweep.py"}
"""A Literal type cannot name a constant; its values are compared with the constants below."""


def _constants(*groups: type) -> dict[str, str]:
    return {
        f"{group.__name__}.{key}": value
        for group in groups
        for key, value in vars(group).items()
        if not key.startswith("_")
    }


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module that are no docstrings, with their lines."""
    alone = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.lineno, node.value


def test_no_other_module_spells_a_name_of_a_metric_a_tag_or_an_artifact_again():
    names = {name for name in _constants(Artifacts, Metrics, Tags).values() if "/" in name or "." in name}
    names |= {VersionTags.KIND, VersionTags.SWEEP}
    prefixes = tuple(name for name in names if name.endswith("/"))
    again = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path not in NAMES | FIXED
        for line, text in _strings(ast.parse(path.read_text(encoding="utf-8")))
        if text in names or any(text.startswith(name) and " " not in text for name in prefixes)
    ]
    assert not again, "take the constant instead:\n" + "\n".join(again)


def test_no_two_constants_of_a_group_have_one_value():
    for group in (Artifacts, EventBaselines, Metrics, Tags, VersionTags):
        values = list(_constants(group).values())
        assert len(values) == len(set(values)), group.__name__


def test_the_objectives_of_a_sweep_are_metrics():
    choices = set(get_args(SweepConfig.model_fields["objective"].annotation)) - {"auto"}
    assert choices == {Metrics.VAL_HUBER, Metrics.PROBE_R2_GAIN, Metrics.FEW_SHOT, Metrics.INNER_JOINT_AT_3}


def test_cards_lie_in_the_folder_of_their_model():
    assert f"{Artifacts.ENCODER}/{ENCODER_CARD}" == Artifacts.ENCODER_CARD
    assert f"{Artifacts.DETECTOR}/{DETECTOR_CARD}" == Artifacts.DETECTOR_CARD
