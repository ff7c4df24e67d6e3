"""Ten small faults in how files reach the disk: each is noticed by a test that its row names."""

from __future__ import annotations

from pathlib import Path

import pytest
from paths import ROOT

from tools.mutations import MUTATIONS, Mutation, copy_tree, killer


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_a_mutation_changes_what_the_program_says_now_and_its_tests_exist(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text(encoding="utf-8").count(mutation.before) == 1
    assert all((ROOT / test).is_file() for test in mutation.tests)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_every_mutation_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    copy_tree(tmp_path)
    assert killer(mutation, tmp_path)
