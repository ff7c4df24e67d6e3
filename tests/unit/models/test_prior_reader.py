"""The prior reader and the parts of the rules objective that it rests on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moola_mlflow.core.errors import TrainingError
from moola_mlflow.models.heads import Detector, pooling
from moola_mlflow.models.objectives.rules import pooled_at
from moola_mlflow.models.prior_reader import Prior, SpanLabels, fit_prior_reader, reader_loss
from moola_mlflow.models.task_heads import TaskHeads

SIZE, STEPS, NUM_RULES = 12, 40, 20


@pytest.fixture
def heads() -> TaskHeads:
    torch.manual_seed(0)
    names = tuple(f"rule-{i}" for i in range(NUM_RULES))
    return TaskHeads(names, torch.randn(NUM_RULES, 2, SIZE), torch.randn(NUM_RULES, 3, 3 * SIZE))


def task(heads: TaskHeads, num: int, num_classes: int, seed: int) -> tuple[torch.Tensor, SpanLabels]:
    """Windows with spans that one combination of the rules finds, and classes that one of their layers names."""
    torch.manual_seed(seed)
    h = torch.randn(num, STEPS, SIZE)
    rng = np.random.default_rng(seed)
    start = torch.as_tensor(rng.integers(3, STEPS - 12, num))
    end = start + torch.as_tensor(rng.integers(4, 9, num))
    pointer = heads.pointers.mean(0) + 0.5 * (heads.pointers[0] - heads.pointers[1])
    rows = torch.arange(num)
    h[rows, start] += 3 * pointer[0] / pointer[0].norm()
    h[rows, end] += 3 * pointer[1] / pointer[1].norm()
    pooled = (pooling(start, end, STEPS) @ h).flatten(1)
    label = (pooled @ heads.classes[2].T)[:, :num_classes].argmax(1)
    return h, SpanLabels(label, start, end)


def share_right(reader: Detector, h: torch.Tensor, labels: SpanLabels) -> float:
    output = reader(h)
    start, end = reader.decode(output)
    near = (start + end - labels.start - labels.end).abs() <= 6
    return float((near & (output.class_logits.argmax(1) == labels.label)).float().mean())


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_few_windows_suffice_where_the_task_is_near_the_rules(heads: TaskHeads, num_classes: int) -> None:
    h, labels = task(heads, 60, num_classes, 1)
    test_h, test_labels = task(heads, 300, num_classes, 2)
    reader = fit_prior_reader([Prior.of(heads)], h, labels, num_classes)
    assert share_right(reader, test_h, test_labels) > 0.7
    few = fit_prior_reader([Prior.of(heads)], h[:10], labels.at(np.arange(10)), num_classes)
    assert reader_loss(reader, test_h, test_labels) < reader_loss(few, test_h, test_labels)


def test_shuffled_labels_teach_nothing(heads: TaskHeads) -> None:
    h, labels = task(heads, 60, 2, 1)
    order = np.random.default_rng(0).permutation(60)
    test_h, test_labels = task(heads, 300, 2, 2)
    reader = fit_prior_reader([Prior.of(heads)], h, labels.at(order), 2)
    assert share_right(reader, test_h, test_labels) < 0.5


def test_a_fit_draws_nothing_and_leaves_its_inputs_alone(heads: TaskHeads) -> None:
    h, labels = task(heads, 40, 2, 1)
    kept = h.clone()
    torch.manual_seed(1)
    first = fit_prior_reader([Prior.of(heads)], h, labels, 2, mirrored_NTD=h + 0.1)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    again = fit_prior_reader([Prior.of(heads)], h, labels, 2, mirrored_NTD=h + 0.1)
    assert torch.equal(h, kept)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert state is not None
    assert not any(parameter.grad is not None for parameter in first.parameters())


def test_two_encoders_side_by_side_average_their_logits(heads: TaskHeads) -> None:
    h, labels = task(heads, 40, 2, 1)
    other = torch.randn(40, STEPS, SIZE, generator=torch.Generator().manual_seed(5))
    priors = [Prior.of(heads), Prior.of(heads, rank=4)]
    both = fit_prior_reader(priors, torch.cat([h, other], -1), labels, 2)
    alone = [fit_prior_reader([prior], x, labels, 2) for prior, x in zip(priors, (h, other), strict=True)]
    outputs = [reader(x).pointers[0] for reader, x in zip(alone, (h, other), strict=True)]
    expected = (outputs[0] + outputs[1]) / 2
    torch.testing.assert_close(both(torch.cat([h, other], -1)).pointers[0], expected, rtol=1e-4, atol=1e-4)


def test_spans_of_the_labels_lengths_are_found_and_no_others(heads: TaskHeads) -> None:
    h, labels = task(heads, 40, 2, 1)
    reader = fit_prior_reader([Prior.of(heads)], h, labels, 2)
    start, end = reader.decode(reader(h))
    assert set((end - start + 1).tolist()) <= set(range(5, 10))
    wide = fit_prior_reader([Prior.of(heads)], h, labels, 2, lengths=(20, 30))
    start, end = wide.decode(wide(h))
    assert int((end - start + 1).min()) >= 20


def test_encodings_that_are_no_numbers_are_refused(heads: TaskHeads) -> None:
    h, labels = task(heads, 40, 2, 1)
    with pytest.raises(TrainingError, match="not finite"):
        fit_prior_reader([Prior.of(heads)], h * torch.nan, labels, 2)


def test_the_prior_spans_the_rules_own_heads(heads: TaskHeads) -> None:
    prior = Prior.of(heads, rank=NUM_RULES - 1)
    centred = (heads.pointers - prior.mean).flatten(1)
    basis = prior.pointers.flatten(1)
    left = torch.linalg.lstsq(basis.T, centred.T).solution
    torch.testing.assert_close(basis.T @ left, centred.T, rtol=1e-3, atol=1e-3)
    spread = centred.square().sum() / NUM_RULES
    assert float(basis.square().sum()) == pytest.approx(float(spread), rel=1e-3)


def test_running_sums_pool_as_the_span_head_does() -> None:
    torch.manual_seed(0)
    h = torch.randn(4, STEPS, SIZE)
    start = torch.tensor([[0, 5], [10, 38], [1, 20], [30, 2]])
    end = torch.tensor([[3, 9], [39, 39], [1, 33], [38, 4]])
    pooled = pooled_at(h, start, end)
    for j in range(2):
        expected = (pooling(start[:, j], end[:, j], STEPS) @ h).flatten(1)
        torch.testing.assert_close(pooled[:, j], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shapes", [((3, 2, 4), (3, 3, 11)), ((3, 1, 4), (3, 3, 12)), ((2, 2, 4), (3, 3, 12))])
def test_heads_that_do_not_fit_each_other_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="task heads of 3 rules"):
        TaskHeads(("a", "b", "c"), torch.zeros(shapes[0]), torch.zeros(shapes[1]))
