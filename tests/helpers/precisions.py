"""Precisions that this machine trains in."""

import pytest

from moola_mlflow.core.runtime import cpu_runs_bf16

needs_bf16 = pytest.mark.skipif(not cpu_runs_bf16(), reason="this processor runs no LSTM in bf16")
PRECISIONS = ["fp32", pytest.param("bf16", marks=needs_bf16)]
