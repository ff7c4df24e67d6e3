"""The minGRU: a state for each step, as a plain loop computes it, from both ends of a window."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from moola_mlflow.models.encoders.mingru import LONGEST, BidirectionalMinGRU, MinGRUBlock, Recurrence


def plain_loop(p_TBP: Tensor) -> Tensor:
    """Return the states step by step, with nothing but autograd."""
    g_TBD, c_TBD = p_TBP[..., : p_TBP.shape[-1] // 2].sigmoid(), p_TBP[..., p_TBP.shape[-1] // 2 :]
    num_steps, num_units = len(p_TBP), g_TBD.shape[-1]
    ahead, back = [torch.zeros_like(g_TBD[0])], [torch.zeros_like(g_TBD[0])]
    for t in range(num_steps):
        ahead.append((1 - g_TBD[t]) * ahead[-1] + g_TBD[t] * c_TBD[t])
        last = num_steps - 1 - t
        back.append((1 - g_TBD[last]) * back[-1] + g_TBD[last] * c_TBD[last])
    half = num_units // 2
    return torch.cat([torch.stack(ahead[1:])[..., :half], torch.stack(back[:0:-1])[..., half:]], -1)


@pytest.mark.parametrize("size", [1.0, 30.0])
@pytest.mark.parametrize("num_steps", [1, 2, 105, 240])
def test_states_and_gradients_are_those_of_a_plain_loop(num_steps: int, size: float) -> None:
    """A size of 30 gives gates that are 0 or 1 in float32."""
    torch.manual_seed(0)
    p_TBP = (torch.randn(num_steps, 3, 16) * size).requires_grad_()
    weight_TBD = torch.randn(num_steps, 3, 8)
    fast, plain = Recurrence.apply(p_TBP), plain_loop(p_TBP)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-5)
    (by_fast,) = torch.autograd.grad((fast * weight_TBD).sum(), p_TBP)
    (by_plain,) = torch.autograd.grad((plain * weight_TBD).sum(), p_TBP)
    torch.testing.assert_close(by_fast, by_plain, rtol=1e-5, atol=1e-5)


def test_the_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    p_TBP = torch.randn(5, 2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Recurrence.apply, p_TBP)


def test_units_begin_with_many_lengths_of_memory() -> None:
    memory = 1 / MinGRUBlock(16, 0.0).gates.bias[:16].sigmoid()
    torch.testing.assert_close(memory[:8], memory[8:])
    torch.testing.assert_close(memory[[0, 7]], torch.tensor([2.0, float(LONGEST)]))
    assert (memory[:8].diff() > 0).all()


def test_each_step_reads_the_whole_window() -> None:
    torch.manual_seed(0)
    encoder, z_BTF = BidirectionalMinGRU(3, 8, 1, 0.0).eval(), torch.randn(1, 40, 3, requires_grad=True)
    for step in (0, 20, 39):
        (by_z,) = torch.autograd.grad(encoder(z_BTF)[0, step].square().sum(), z_BTF)
        assert (by_z.abs().sum(-1) > 0).all()


def test_the_recurrence_is_computed_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    block, seen = MinGRUBlock(16, 0.0), []
    block.dropout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        block(torch.randn(20, 2, 16))
    assert seen == [torch.float32]
