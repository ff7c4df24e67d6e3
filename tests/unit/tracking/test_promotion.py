"""Promotion: which version is meant, what its card says, whether it serves, and how aliases move."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from small_models import GOOD_EVIDENCE, small_encoder

from moola_mlflow.core import GateError, PromoteKeys, UserError, make_config
from moola_mlflow.evaluation import all_gates_passed
from moola_mlflow.models import save_encoder
from moola_mlflow.tracking import VersionTags
from moola_mlflow.tracking.recovery import doctor
from moola_mlflow.tracking.registry import promotion
from moola_mlflow.tracking.registry.promotion import Model

GATES = make_config(PromoteKeys, {}, {}).gates


@pytest.fixture
def client(workdir: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient()


@pytest.fixture
def three(client: mlflow.MlflowClient, workdir: Path) -> Model:
    """A registered model of three versions without files; champion is the second."""
    client.create_registered_model("small")
    for _ in range(3):
        client.create_model_version("small", str(workdir))
    client.set_registered_model_alias("small", "champion", "2")
    return promotion.find_model("small")


def aliases(client: mlflow.MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model("small").aliases.items()}


def test_a_version_is_meant_by_its_number_or_an_alias(three: Model) -> None:
    assert three.versions == ("1", "2", "3")
    assert [three.resolve(text) for text in ("3", "champion")] == ["3", "2"]


@pytest.mark.parametrize("text", ["4", "champoin", ""])
def test_what_means_no_version_is_refused_with_all_there_are(three: Model, text: str) -> None:
    with pytest.raises(UserError) as refusal:
        three.resolve(text)
    assert f"no version or alias '{text}'" in str(refusal.value)
    assert "Versions: 1, 2, 3; aliases: champion (version 2)" in str(refusal.value)
    assert ("did you mean 'champion'?" in str(refusal.value)) == (text == "champoin")


def test_a_model_that_is_not_registered_is_refused_with_those_that_are(three: Model) -> None:
    with pytest.raises(UserError, match=r"model='smal' is not registered in .*did you mean 'small'.*: small"):
        promotion.find_model("smal")


def test_without_any_model_the_refusal_says_what_registers_one(client: mlflow.MlflowClient) -> None:
    with pytest.raises(UserError, match="Registered: none; `pretrain` and `finetune` register models"):
        promotion.find_model("small")


@pytest.mark.parametrize("alias", ["champion", "shadow", "a-b_c", "v", "version1"])
def test_an_alias_of_ones_own_is_allowed(alias: str) -> None:
    promotion.check_alias(alias)


@pytest.mark.parametrize(
    ("alias", "message"),
    [
        ("candidate", "registering a version moves it"),
        ("previous", "`promote` moves it with champion"),
        *((alias, "allowed: letters") for alias in ("", "latest", "v3", "V12", "3", "a b", "ä", "-a", "x" * 256)),
    ],
)
def test_an_alias_that_is_not_for_promotion_is_refused(alias: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        promotion.check_alias(alias)


def test_champion_leaves_its_version_to_previous_and_the_new_one_is_tagged(
    client: mlflow.MlflowClient, three: Model
) -> None:
    assert not promotion.was_promoted("small", "3")
    assert promotion.move_alias(three, "champion", "3", {VersionTags.PROMOTED_BY: "a run", "gates": "passed"}) == "2"
    assert aliases(client) == {"champion": "3", "previous": "2"}
    assert client.get_model_version("small", "3").tags == {"promoted_by": "a run", "gates": "passed"}
    assert promotion.was_promoted("small", "3")


def test_another_alias_moves_alone_and_a_move_to_the_same_version_moves_nothing(
    client: mlflow.MlflowClient, three: Model
) -> None:
    assert promotion.move_alias(three, "shadow", "1", {}) is None
    assert aliases(client) == {"champion": "2", "shadow": "1"}
    assert promotion.move_alias(promotion.find_model("small"), "champion", "2", {"gates": "passed"}) == "2"
    assert aliases(client) == {"champion": "2", "shadow": "1"}
    assert client.get_model_version("small", "2").tags == {"gates": "passed"}


def test_a_move_that_broke_off_in_the_middle_is_completed_by_doing_it_again(
    client: mlflow.MlflowClient, three: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, moved = mlflow.MlflowClient.set_registered_model_alias, []

    def once(self: mlflow.MlflowClient, name: str, alias: str, version: str) -> None:
        if moved:
            raise ConnectionError("gone")
        moved.append(alias)
        real(self, name, alias, version)

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "set_registered_model_alias", once)
        with pytest.raises(ConnectionError):
            promotion.move_alias(three, "champion", "3", {})
    assert aliases(client) == {"champion": "2", "previous": "2"}
    promotion.move_alias(promotion.find_model("small"), "champion", "3", {})
    assert aliases(client) == {"champion": "3", "previous": "2"}


def test_of_two_promotions_at_once_the_second_sees_the_first(client: mlflow.MlflowClient, three: Model) -> None:
    seen_by_both = promotion.find_model("small")
    assert promotion.move_alias(seen_by_both, "champion", "3", {VersionTags.PROMOTED_BY: "a"}) == "2"
    assert promotion.move_alias(seen_by_both, "champion", "1", {VersionTags.PROMOTED_BY: "b"}) == "3"
    assert aliases(client) == {"champion": "1", "previous": "3"}


def test_many_promotions_at_once_leave_the_alias_before_the_last_as_previous(
    client: mlflow.MlflowClient, three: Model
) -> None:
    moved: list[tuple[str | None, str]] = []

    def promote(version: str) -> None:
        moved.append((promotion.move_alias(three, "champion", version, {VersionTags.PROMOTED_BY: version}), version))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(promote, ["1", "3", "1", "3"]))
    steps = [(before, to) for before, to in moved if before != to]
    final = aliases(client)
    assert (final["previous"], final["champion"]) in steps


def test_promoted_by_is_written_after_the_alias_has_moved(
    client: mlflow.MlflowClient, three: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: mlflow.MlflowClient, name: str, alias: str, version: str) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "set_registered_model_alias", fails)
        with pytest.raises(ConnectionError):
            promotion.move_alias(three, "champion", "3", {VersionTags.PROMOTED_BY: "a", "gates": "passed"})
    assert not promotion.was_promoted("small", "3")


def test_an_alias_of_a_deleted_version_moves_on(client: mlflow.MlflowClient, three: Model) -> None:
    client.delete_model_version("small", "2")
    assert promotion.move_alias(promotion.find_model("small"), "champion", "3", {}) is None
    assert aliases(client) == {"champion": "3"}


def test_an_alias_that_was_moved_by_hand_goes_back_to_the_version_promoted_before(
    client: mlflow.MlflowClient, three: Model
) -> None:
    promotion.move_alias(three, "champion", "3", {VersionTags.PROMOTED_BY: "a", "gates": "forced: failed"})
    assert not promotion.may_go_back(promotion.find_model("small"), "champion", "3")
    client.set_registered_model_alias("small", "champion", "1")  # in the UI
    by_hand = promotion.find_model("small")
    assert promotion.may_go_back(by_hand, "champion", "3")
    assert not promotion.may_go_back(by_hand, "champion", "2")  # no promotion has moved it there
    assert (promotion.last_promoted("small", "1"), promotion.last_promoted("small", "3")) == ("3", "")
    by_hand_now = "alias 'champion' of small was moved by hand"
    (found,) = [check for check in doctor.examine_store() if by_hand_now in check.what]
    assert "moola promote --model small --alias champion --version 3, which goes back" in found.cure
    assert "--version 1 --force true" in found.cure


def test_a_version_without_evidence_is_no_candidate(client: mlflow.MlflowClient, three: Model) -> None:
    with pytest.raises(UserError, match="version 1 of small, which alias 'candidate' names, has no tags"):
        promotion.check_candidate("small", "1")
    client.set_model_version_tag("small", "1", "gates", "passed")
    promotion.check_candidate("small", "1")


def test_the_run_that_registered_a_version_is_known_or_said_to_be_unknown(client: mlflow.MlflowClient) -> None:
    run = client.create_run("0")
    client.create_registered_model("small")
    client.create_model_version("small", f"{run.info.artifact_uri}/encoder", run_id=run.info.run_id)
    client.create_model_version("small", "nowhere")
    small = promotion.find_model("small")
    assert [promotion.registering_run(small, version) for version in ("1", "2")] == [run.info.run_id, "unknown"]


def version_of(client: mlflow.MlflowClient, folder: Path) -> None:
    """Register a folder as version 1 of `small`."""
    client.create_registered_model("small")
    client.create_model_version("small", str(folder))


def test_a_version_is_fetched_with_its_card_and_a_detectors_encoders_are_not_taken_for_it(
    client: mlflow.MlflowClient, workdir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = workdir / "model"
    encoder = small_encoder()
    save_encoder(encoder, encoder.card, folder / "artifacts" / "detector" / "encoders" / "0")
    (folder / "artifacts" / "detector" / "detector.json").write_text('{"evidence": {}}')
    version_of(client, folder)
    fetched, card = promotion.fetch_version("small", "1", tmp_path_factory.mktemp("scratch"))
    assert card == {"evidence": {}, promotion.CARD_OF: "detector"}
    assert (fetched / "artifacts" / "detector" / "detector.json").is_file()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds neither detector.json nor encoder.json"),
        ({"model.pkl": "x"}, "holds neither detector.json nor encoder.json"),
        ({"encoder/encoder.json": "{"}, "encoder.json cannot be read"),
        ({"detector/detector.json": "[" * 100_000}, "detector.json cannot be read"),
    ],
    ids=["gone", "of another program", "damaged", "hostile"],
)
def test_a_version_that_carries_no_card_is_refused(
    client: mlflow.MlflowClient,
    workdir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, str],
    message: str,
) -> None:
    for name, text in files.items():
        (workdir / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (workdir / "model" / name).write_text(text)
    version_of(client, workdir / "model")
    with pytest.raises(UserError, match=message):
        promotion.fetch_version("small", "1", tmp_path_factory.mktemp("scratch"))


def test_a_version_that_is_not_there_cannot_be_fetched(three: Model, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'models:/small/9' cannot be fetched from"):
        promotion.fetch_version("small", "9", tmp_path)


def test_the_gates_of_a_card_are_those_of_its_kind() -> None:
    detector = {promotion.CARD_OF: "detector", "inputs": "both", "evidence": GOOD_EVIDENCE}
    encoder = {promotion.CARD_OF: "encoder", **small_encoder().card}
    assert all_gates_passed(promotion.judge_card(detector, GATES))
    assert all_gates_passed(promotion.judge_card(encoder, GATES))
    names = [{gate.name for gate in promotion.judge_card(card, GATES)} for card in (detector, encoder)]
    assert "f1_macro" in names[0] - names[1]
    assert "probe_r2_gain" in names[1] - names[0]


@pytest.mark.parametrize(
    "inputs", ["path", "price_path", "price_path+features"], ids=["its early name", "its name", "with features"]
)
def test_an_early_card_of_a_detector_on_price_path_features_gained_over_other_inputs(inputs: str) -> None:
    def about(card: dict[str, object]) -> str:
        (gain,) = [gate for gate in promotion.judge_card(card, GATES) if gate.name.startswith("delta")]
        return gain.about

    early = {promotion.CARD_OF: "detector", "inputs": inputs, "evidence": GOOD_EVIDENCE}
    both = {**early, "inputs": "both"}
    assert about(early) != about(both)
    assert about({**early, "evidence": {**GOOD_EVIDENCE, "delta_same_inputs": True}}) == about(both)


def test_a_version_whose_card_names_no_window_does_not_serve(tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"small version 1 does not serve, .* its card names no window length"):
        promotion.check_serves(tmp_path, {"window": {}}, "small version 1")
