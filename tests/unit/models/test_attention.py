"""Local attention: a step reads the steps around it and no others, and knows them by their distance alone."""

from __future__ import annotations

import pytest
import torch

from moola_mlflow.models.encoders.attention import REACH, Attention, LocalAttention, num_heads


@pytest.mark.parametrize("layers", [1, 2])
def test_a_layer_reads_sixteen_steps_to_each_side(layers: int) -> None:
    torch.manual_seed(0)
    encoder = LocalAttention(3, hidden=8, layers=layers, dropout=0.0).eval()
    z_BTF = torch.randn(1, 105, 3, requires_grad=True)
    (by_z,) = torch.autograd.grad(encoder(z_BTF)[0, 52].square().sum(), z_BTF)
    read = by_z[0].abs().sum(-1).nonzero().flatten().tolist()
    assert read == list(range(52 - layers * REACH, 52 + layers * REACH + 1))


def test_attention_is_that_of_a_plain_loop_over_steps() -> None:
    torch.manual_seed(0)
    layer, h_BTD = Attention(8, heads=2), torch.randn(2, 40, 8)
    torch.nn.init.normal_(layer.bias)
    q, k, v = layer.qkv(h_BTD).chunk(3, -1)
    seen = torch.zeros_like(h_BTD)
    for head, units in enumerate((slice(0, 4), slice(4, 8))):
        for t in range(40):
            near = range(max(0, t - REACH), min(40, t + REACH + 1))
            scores = (q[:, t, None, units] * k[:, near, units]).sum(-1) / 4**0.5
            scores = scores + layer.bias[head, [s - t + REACH for s in near]]
            seen[:, t, units] = (scores.softmax(-1)[..., None] * v[:, near, units]).sum(1)
    torch.testing.assert_close(layer(h_BTD), layer.linear(seen))


def test_a_step_is_read_alike_wherever_it_lies() -> None:
    torch.manual_seed(0)
    encoder, z_BTF = LocalAttention(3, hidden=8, layers=2, dropout=0.0).eval(), torch.randn(1, 150, 3)
    torch.testing.assert_close(encoder(z_BTF)[:, 50:60], encoder(z_BTF[:, 10:100])[:, 40:50])


def test_before_and_after_are_told_apart() -> None:
    torch.manual_seed(0)
    layer, h_BTD = Attention(8, heads=1), torch.randn(1, 30, 8)
    torch.nn.init.normal_(layer.bias)
    assert not torch.allclose(layer(h_BTD.flip(1)).flip(1), layer(h_BTD))


@pytest.mark.parametrize(("hidden", "heads"), [(1, 1), (8, 1), (16, 1), (32, 2), (48, 3), (37, 1), (128, 8)])
def test_heads_divide_the_units_and_are_not_too_small(hidden: int, heads: int) -> None:
    assert num_heads(hidden) == heads
    assert LocalAttention(3, hidden, 1, 0.0)(torch.randn(1, 4, 3)).shape == (1, 4, 2 * hidden)
