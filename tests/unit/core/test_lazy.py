"""A face imports the module of a name when the name is first asked for, and says plainly what it does not have."""

from __future__ import annotations

import sys
import types

import pytest

from moola_mlflow.core.lazy import lazy_face


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package whose face offers ``mean`` and ``median`` of the module ``statistics``, which is already there."""
    face = types.ModuleType("room")
    monkeypatch.setitem(sys.modules, "room", face)
    home = types.ModuleType("room.home")
    home.__dict__.update(mean=1, median=2, other=3)
    monkeypatch.setitem(sys.modules, "room.home", home)
    face.__all__, face.__getattr__, face.__dir__ = lazy_face("room", {"home": ["median", "mean"]})  # type: ignore[attr-defined,method-assign]
    return face


def test_a_name_comes_from_its_module_and_stays(room: types.ModuleType) -> None:
    assert "mean" not in vars(room)
    assert room.mean == 1
    assert vars(room)["mean"] == 1
    del sys.modules["room.home"].mean
    assert room.mean == 1  # kept: no second import


def test_a_face_lists_its_names_sorted_before_any_is_imported(room: types.ModuleType) -> None:
    assert room.__all__ == ["mean", "median"]
    assert {"mean", "median", "__name__"} <= set(dir(room))


def test_a_name_that_is_not_exported_is_refused_even_if_the_module_has_it(room: types.ModuleType) -> None:
    with pytest.raises(AttributeError, match="module 'room' has no attribute 'other'"):
        _ = room.other
    assert not hasattr(room, "nothing")
