"""Dropout by key: the bits of a window do not depend on the windows that it is computed with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from moola_mlflow.models.encoders.base import Encoder
from moola_mlflow.models.encoders.bilstm import BiLSTM
from moola_mlflow.models.encoders.keyed_dropout import Dropout, can_be_shared, stream, use_torch_dropout


def test_dropout_of_some_rows_is_a_slice_of_that_of_all() -> None:
    layer = Dropout(0.4).train()
    h = torch.ones(10, 7, 6)  # 42 values a window: no multiple of 16
    with stream(5, [slice(0, 10)]):
        whole, second = layer(h), layer(h)
    assert not torch.equal(whole, second)
    with stream(5, [slice(2, 5), slice(8, 10)]):
        part, part_second = layer(h[:5]), layer(h[:5])
    assert torch.equal(part, torch.cat([whole[2:5], whole[8:]]))
    assert torch.equal(part_second, torch.cat([second[2:5], second[8:]]))
    with stream(6, [slice(0, 10)]):
        assert not torch.equal(layer(h), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.65, 0.999])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    h = torch.ones(64, 105, 64, dtype=dtype, requires_grad=True)
    with stream(1, [slice(0, 64)]):
        out = Dropout(p).train()(h)
    out.float().sum().backward()
    assert h.grad is not None
    kept = (out != 0).float().mean().item()
    assert kept == pytest.approx(1 - p, abs=5 * (p * (1 - p) / out.numel()) ** 0.5 + 1e-5)
    assert out.max().item() == pytest.approx(1 / (1 - p), rel=0.01)
    assert torch.equal(h.grad, out.detach())


def test_dropout_does_nothing_in_evaluation_or_at_zero() -> None:
    h = torch.randn(2, 3, 4)
    assert Dropout(0.5).eval()(h) is h
    assert Dropout(0.0).train()(h) is h


def test_without_a_stream_the_key_comes_from_torchs_generator() -> None:
    layer, h = Dropout(0.5).train(), torch.ones(4, 5, 6)
    torch.manual_seed(3)
    first = layer(h)
    assert not torch.equal(layer(h), first)
    torch.manual_seed(3)
    assert torch.equal(layer(h), first)


def test_a_stream_inside_another_ends_with_the_outer_one_in_force() -> None:
    layer, h = Dropout(0.5).train(), torch.ones(2, 5, 6)
    with stream(1, [slice(0, 2)]):
        layer(h)
        second = layer(h)
    with stream(1, [slice(0, 2)]):
        layer(h)
        with stream(2, [slice(0, 2)]):
            layer(h)
        assert torch.equal(layer(h), second)


def test_plain_dropout_is_torchs_own() -> None:
    model = BiLSTM(3, 4, 2, 0.5)
    use_torch_dropout(model)
    assert not can_be_shared(model)
    h = torch.ones(4, 5, 6)
    torch.manual_seed(3)
    ours = model.dropout.train()(h)
    torch.manual_seed(3)
    assert torch.equal(ours, nn.functional.dropout(h, 0.5))


class Drawing(Encoder):
    """An encoder whose dropout draws from torch's own generator."""

    def __init__(self) -> None:
        super().__init__(3)
        self.output_size, self.drop = 3, nn.Dropout(0.5)

    def encode(self, z_BTF: Tensor) -> Tensor:
        return self.drop(z_BTF)


def test_threads_can_share_a_model_only_if_all_of_its_dropout_is_keyed() -> None:
    assert can_be_shared(BiLSTM(11, 4, 2, 0.5))
    assert not can_be_shared(Drawing())
    assert not can_be_shared(nn.LSTM(3, 3, num_layers=2, dropout=0.1))
    assert can_be_shared(nn.Dropout(0.0))  # it draws nothing
