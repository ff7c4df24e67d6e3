"""A comparison shows the keys that differ, warns of runs that cannot be compared, and draws any name."""

from __future__ import annotations

import pytest
from run_records import record

from moola_mlflow.core import FinetuneKeys, make_config
from moola_mlflow.evaluation.bootstrap import Interval
from moola_mlflow.reports import compare
from moola_mlflow.reports.plots.compare import literal, overlay_figure, scores_figure
from moola_mlflow.reports.plots.figure import png_bytes
from moola_mlflow.tracking.run_reader import RunRecord, Sources, encoder_sources


def test_only_keys_that_differ_are_shown_and_a_missing_one_is_missing() -> None:
    assert compare.differing([{"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}]) == {
        "b": ["2", "3"],
        "c": [None, "4"],
    }
    assert compare.differing([{"a": "1"}, {"a": "1"}]) == {}


def test_the_same_alias_that_meant_two_encoders_is_a_difference() -> None:
    def run(encoder: str) -> RunRecord:
        config = make_config(FinetuneKeys, {}, {"finetune.encoder": "models:/e@candidate"}).to_yaml()
        card = {"encoders": [{"uri": "models:/e@candidate", "run_id": encoder}]}
        return record(files={"config.yaml": config, "detector/detector.json": card})

    keys = compare.differing([compare.configured(run("one")), compare.configured(run("two"))])
    assert keys == {"encoder made by run": ["one", "two"]}


def test_what_a_run_recorded_of_its_encoders_counts_and_a_gap_is_said() -> None:
    def sources(**tags: str) -> Sources:
        config = make_config(FinetuneKeys, {}, {"finetune.encoder": "models:/e@candidate"}).to_yaml()
        return encoder_sources(record(tags={key.replace("_", ".", 1): value for key, value in tags.items()},
                                      files={"config.yaml": config}, status="KILLED"))  # fmt: skip

    # A run that was killed has no card, but its tags were set before it trained.
    assert sources(moola_encoder="models:/e/1", moola_encoder_run_id="one") == Sources(("one",))
    assert sources(moola_encoder="models:/e/1,models:/e/2", moola_encoder_run_id="one,two").run_ids == ("one", "two")
    partly = sources(moola_encoder="models:/e/1,a.pt", moola_encoder_run_id="one")
    assert partly.run_ids == ("one",)
    assert "does not say which run made each" in partly.unknown
    assert "it ended (KILLED) before" in sources().unknown


def test_losses_of_unlike_objectives_data_and_commits_come_with_a_warning() -> None:
    a, b = record("pretrain"), record("pretrain", tags={"moola.data_sha256": "others", "moola.identity": "true"})
    assert compare.warnings([a, a], {}) == []
    said = " ".join(compare.warnings([a, b], {"objective.name": ["price_path", "masked"], "optimizer.lr": ["1", "2"]}))
    assert "same bars" in said
    assert "(objective.name differ)" in said
    assert "measure copying" in said
    assert "B is KILLED" in " ".join(compare.warnings([a, record("pretrain", status="KILLED")], {}))


def test_evaluations_show_their_scores_and_warn_of_unlike_truths() -> None:
    def run(truth: str, detector: str, score: float) -> RunRecord:
        tags = {"moola.truth": truth, "moola.detector": detector}
        return record("evaluate", tags=tags, metrics={"eval/map": score})

    one, other = run("the rule surge-1", "models:/d/1", 0.5), run("the rule surge-1", "models:/d/2", 0.75)
    page = compare.build_comparison([one, other]).markdown()
    assert "`eval/map` | 0.5 | 0.75 | +0.25" in page
    assert "`models:/d/1` | `models:/d/2`" in page
    assert not any("truth" in text for text in compare.warnings([one, other], {}))
    assert any("same truth" in text for text in compare.warnings([one, run("the rule spike", "models:/d/1", 0.5)], {}))


@pytest.mark.parametrize("given", ["", "one", "one,", ",".join("abcdefghi")])
def test_fewer_than_two_or_too_many_runs_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match="allowed: 2 to 8"):
        compare.find_compared_runs(given)


def test_a_run_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="names 'one' twice"):
        compare.find_compared_runs("one,two, one")


@pytest.mark.parametrize("name", ["$\\frac{", "_hidden", "a" * 500, "<script>", "", "$x$ | `y`\n"])
def test_any_name_can_stand_in_a_picture(name: str) -> None:
    curves = {"val/loss": [[{0: 1.0, 1: 0.5}], [{0: 1.0}]], "train/loss": [[{0: 1.0}, {0: 2.0}], []]}
    assert png_bytes(overlay_figure([name, "B"], curves, "loss")).startswith(b"\x89PNG")
    assert png_bytes(scores_figure([name, "B"], {"F1": [Interval(0.5, 0.4, 0.6), None]})).startswith(b"\x89PNG")
    assert not literal(name).startswith("_")
    assert len(literal(name)) < 60


def test_a_legend_names_each_curve_once() -> None:
    curves = {"val/nll": [[{0: 1.0}, {0: 2.0}, {0: 3.0}], [{0: 1.0}]]}
    legend = overlay_figure(["A", "B"], curves, "folds").axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["A  val/nll", "B  val/nll"]
