"""Raw windows in, embeddings out: what is read, how it is pooled, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import small_encoder, windows

from moola_mlflow.core import UserError
from moola_mlflow.features import Hybrid, compute_inputs
from moola_mlflow.models import embedding
from moola_mlflow.models.embedding import check_windows, embed, encoder_inputs


def test_each_pool_is_taken_from_all_steps() -> None:
    encoder, ohlc = small_encoder(), windows(4)
    steps_NTD = embed(encoder, ohlc, "none")
    assert steps_NTD.shape == (4, 105, encoder.output_size)
    torch.testing.assert_close(embed(encoder, ohlc), steps_NTD.mean(1))
    assert torch.equal(embed(encoder, ohlc, "last"), steps_NTD[:, -1])


@pytest.mark.parametrize("pool", ["mean", "last", "none"])
def test_no_windows_have_no_embeddings_of_the_same_shape(pool: str) -> None:
    encoder = small_encoder()
    assert embed(encoder, windows(3)[:0], pool).shape == (0, *embed(encoder, windows(3), pool).shape[1:])


def test_pieces_give_what_one_pass_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, ohlc = small_encoder(), windows(7)
    whole = embed(encoder, ohlc)
    monkeypatch.setattr(embedding, "CHUNK", 3)
    torch.testing.assert_close(embed(encoder, ohlc), whole)


def test_an_encoder_is_read_in_evaluation_mode_and_left_as_it_was() -> None:
    encoder, ohlc = small_encoder(), windows(2)
    expected = embed(encoder, ohlc)
    encoder.train()
    assert torch.equal(embed(encoder, ohlc), expected)
    assert encoder.training
    assert not expected.requires_grad


def test_the_card_says_what_is_read_of_a_window_and_an_early_card_means_features() -> None:
    ohlc, hybrid = windows(2), {"lookback": 5, "min_retrace": 0.5, "same_bar": True}
    card = {"features": {"set": "relativity10", "hybrid": hybrid}, "architecture": {"inputs": "both"}}
    for inputs, architecture in (("both", {"inputs": "both"}), ("features", {})):
        found = encoder_inputs({**card, "architecture": architecture}, ohlc)
        np.testing.assert_array_equal(found, compute_inputs(ohlc, "relativity10", Hybrid(**hybrid), inputs))


def test_an_unknown_pool_is_refused() -> None:
    with pytest.raises(UserError, match="pool='max'; allowed: mean, last, none"):
        embed(small_encoder(), windows(1), "max")


def test_sound_windows_come_back_as_float64_from_any_numbers() -> None:
    ohlc = windows(2)
    found = check_windows(ohlc.astype(np.float32).tolist(), 105)  # type: ignore[arg-type]
    assert (found.dtype, found.shape) == (np.float64, (2, 105, 4))
    np.testing.assert_allclose(found, ohlc, rtol=1e-6)


def with_bar(**cells: float) -> np.ndarray:
    ohlc = windows(3)
    for name, value in cells.items():
        ohlc[1, 7, ["open", "high", "low", "close"].index(name)] = value
    return ohlc


@pytest.mark.parametrize(
    ("ohlc", "words"),
    [
        (windows(2)[:, 1:], r"shape \(2, 104, 4\); allowed: \[N, 105, 4\]"),
        (windows(2)[0], r"shape \(105, 4\)"),
        (windows(2)[..., :3], r"shape \(2, 105, 3\)"),
        (np.full((1, 105, 4), "cheap"), r"must be numbers of shape \[N, 105, 4\]"),
        (with_bar(close=np.nan), "window 1, step 7 is not a bar"),
        (with_bar(open=np.inf), "window 1, step 7 is not a bar"),
        (with_bar(high=0.0), "window 1, step 7.*high at least"),
        (with_bar(low=1e9), "window 1, step 7.*low at most"),
    ],
)
def test_malformed_windows_are_refused_by_window_and_step(ohlc: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        embed(small_encoder(), ohlc)
