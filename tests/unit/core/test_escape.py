"""Names from data and users stay text: what is escaped for Markdown, and what a class is called in a metric."""

from __future__ import annotations

import pytest

from moola_mlflow.core.escape import markdown_code, markdown_lines, markdown_table, markdown_text, metric_name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-0.03 [-0.1, +0.2]", "-0.03 [-0.1, +0.2]"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("1.5 bars", "1.5 bars"),
        ("f1_macro and _u_", r"f1_macro and \_u\_"),
        ("[1, 2](http://e)", r"\[1, 2\](http://e)"),
        ("[1, 2]: http://e", r"\[1, 2\]: http://e"),
        ("[a]: x", r"\[a\]: x"),
        ("a\n# b", "a # b"),
    ],
)
def test_markdown_is_escaped_where_it_means_something_and_only_there(text: str, shown: str) -> None:
    assert markdown_text(text) == shown


def test_code_in_markdown_outlasts_its_own_ticks_and_bars() -> None:
    assert markdown_code("a|b") == "`a|b`"
    assert markdown_code("a|b", in_table=True) == r"`a\|b`"
    assert markdown_code("a``b") == "``` a``b ```"


def test_several_lines_keep_their_list_and_lose_their_markup() -> None:
    assert markdown_lines("2 symbols: *a*\n\n- *b*\n- c") == "2 symbols: \\*a\\*\n\n- \\*b\\*\n- c"


def test_a_cell_of_a_table_cannot_end_its_cell() -> None:
    assert markdown_table(["a|b"], [["c|d"], ["e"]]) == "| a\\|b |\n| --- |\n| c\\|d |\n| e |"


def test_a_metric_has_no_sign_that_mlflow_refuses() -> None:
    assert metric_name("a+b/c (d)") == "a_b/c _d_"
