"""Heads: what they decode, what their losses do, and that nothing overflows."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moola_mlflow.core.errors import UserError
from moola_mlflow.models.encoders import build_encoder
from moola_mlflow.models.heads import HEADS, LOG_SIGMA_BOUNDS, Detector, EncoderDetector, best_span, over_steps, pooling


@pytest.fixture(params=HEADS)
def detector(request: pytest.FixtureRequest) -> Detector:
    torch.manual_seed(0)
    return Detector(request.param, num_inputs=6, num_classes=3, lengths=(5, 12))


@given(seed=st.integers(0, 1000), shortest=st.integers(1, 6), more=st.integers(0, 6), scale=st.sampled_from([0, 1, 50]))
def test_the_decoded_span_is_the_likeliest_of_the_allowed_lengths(
    seed: int, shortest: int, more: int, scale: int
) -> None:
    start, end = scale * torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(seed))
    lengths = (shortest, shortest + more)
    found_start, found_end = best_span(start, end, lengths)
    log_start, log_end = start.log_softmax(-1), end.log_softmax(-1)
    allowed = [(s, e) for s, e in itertools.product(range(20), repeat=2) if lengths[0] <= e - s + 1 <= lengths[1]]
    for b in range(3):
        scores = [float(log_start[b, s] + log_end[b, e]) for s, e in allowed]
        assert (int(found_start[b]), int(found_end[b])) in allowed
        assert float(log_start[b, found_start[b]] + log_end[b, found_end[b]]) == pytest.approx(max(scores), abs=1e-4)


@pytest.mark.parametrize("scale", [0.1, 1.0, 1e4])
def test_every_decoded_span_lies_in_the_window_and_has_an_allowed_length(detector: Detector, scale: float) -> None:
    detector.eval()
    start, end = detector.decode(detector(scale * torch.randn(64, 105, 6)))
    assert start.dtype == end.dtype == torch.int64
    assert int(start.min()) >= 0
    assert int(end.max()) <= 104
    assert {int(n) for n in end - start + 1} <= set(range(5, 13))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_losses_and_gradients_are_finite_at_extreme_logits(detector: Detector, gamma: float) -> None:
    with torch.no_grad():
        for p in detector.head.parameters():
            p.mul_(1e3)
    label, span = torch.tensor([0, 1, 2, 0]), (torch.tensor([0, 20, 60, 93]), torch.tensor([4, 30, 71, 104]))
    output = detector(100 * torch.randn(4, 105, 6), span)
    assert float(output.class_logits.detach().abs().max()) > 1e3
    loss = detector.combined(detector.losses(output, label, span, gamma))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in detector.parameters())


def test_the_gradient_reaches_every_parameter(detector: Detector) -> None:
    label, span = torch.tensor([0, 1, 2]), (torch.tensor([20, 30, 40]), torch.tensor([26, 38, 50]))
    detector.combined(detector.losses(detector(torch.randn(3, 105, 6), span), label, span)).backward()
    assert [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_the_learned_weights_of_the_losses_stay_in_their_bounds_and_come_back(detector: Detector) -> None:
    with torch.no_grad():
        detector.log_sigma.copy_(torch.tensor([-9.0, 9.0]))
    detector.combined(torch.tensor([5.0, 0.0])).backward()
    assert detector.log_sigma.tolist() == list(LOG_SIGMA_BOUNDS)
    assert detector.log_sigma.grad is not None
    assert float(detector.log_sigma.grad[0]) < 0  # a large loss drives its log s up again
    assert float(detector.log_sigma.grad[1]) > 0


def test_the_focal_loss_is_smaller_where_the_class_is_sure(detector: Detector) -> None:
    detector.eval()
    span = (torch.tensor([20]), torch.tensor([26]))
    with torch.no_grad():
        output = detector(torch.randn(1, 105, 6), span)
    label = output.class_logits.argmax(1)
    plain, focal = (detector.losses(output, label, span, gamma)[0] for gamma in (0.0, 2.0))
    probability = output.class_logits.softmax(1).max()
    assert float(focal / plain) == pytest.approx(float((1 - probability) ** 2), rel=1e-4)


@pytest.mark.parametrize("num_steps", [1, 3, 105])
def test_a_convolution_over_steps_is_torchs_own(num_steps: int) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(8, 6, 5, padding=2)
    own, torchs = (torch.randn(4, num_steps, 8).requires_grad_() for _ in range(2))
    torchs.data.copy_(own.data)
    found, expected = over_steps(conv, own), conv(torchs.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    for y in (found, expected):
        y.square().sum().backward()
    torch.testing.assert_close(own.grad, torchs.grad)


def test_the_class_is_read_at_the_span_and_twenty_steps_either_side() -> None:
    weight = pooling(torch.tensor([30, 0]), torch.tensor([35, 9]), 50)
    at, before, after = weight[0]
    assert at.nonzero().flatten().tolist() == list(range(30, 36))
    assert before.nonzero().flatten().tolist() == list(range(10, 30))
    assert after.nonzero().flatten().tolist() == list(range(36, 50))
    torch.testing.assert_close(weight.sum(-1), torch.tensor([[1.0, 1, 1], [1, 0, 1]]))  # nothing lies before step 0


def test_a_detector_carries_its_scaling_and_a_constant_input_counts_as_one(detector: Detector) -> None:
    x = 7 + 3 * torch.randn(20, 105, 6)
    x[..., 2] = 5.0
    detector.fit_scaling(x)
    assert float(detector.std[2]) == 1.0
    name = next(name for name, head in HEADS.items() if type(detector.head) is head)
    again = Detector(name, 6, 3, (5, 12))
    again.load_state_dict(detector.state_dict())
    assert torch.equal(again.eval()(x).class_logits, detector.eval()(x).class_logits)


def test_a_head_of_the_full_size_is_tiny() -> None:
    head = Detector("span", num_inputs=256, num_classes=2, lengths=(5, 12))
    assert sum(p.numel() for p in head.parameters()) < 50_000


def test_an_encoder_and_further_inputs_are_read_side_by_side() -> None:
    encoder = build_encoder("bilstm", 4, hidden=3, layers=1, dropout=0.0)
    model = EncoderDetector(encoder, Detector("span", num_inputs=8, num_classes=2, lengths=(5, 12)))
    x = torch.randn(5, 105, 6)
    assert torch.equal(model.read(x), torch.cat([encoder(x[..., :4]), x[..., 4:]], -1))
    assert model(x).class_logits.shape == (5, 2)


def test_an_unknown_head_suggests_the_nearest_and_impossible_lengths_are_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'span'"):
        Detector("spam", 6, 2, (5, 12))
    with pytest.raises(ValueError, match=r"lengths \(5, 12\)"):
        Detector("span", 6, 2, (5, 12), num_steps=10)
