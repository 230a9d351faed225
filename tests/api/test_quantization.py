"""Quantized operations through the C API."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .conftest import Library, RunPeers


def test_int8_comes_within_its_steps_and_alike(lib: Library, run_peers: RunPeers) -> None:
    inputs = [np.random.default_rng(rank).standard_normal(10_000, np.float32) for rank in range(2)]

    def body(rank: int, comm: Any) -> Any:
        x = inputs[rank].copy()
        quantization = lib.c.pyccl_quantization_of(lib.c.PYCCL_CODEC_INT8)
        assert (quantization.block, quantization.scale) == (256, lib.c.PYCCL_F32)
        quantization.rounding = lib.c.PYCCL_ROUNDING_STOCHASTIC
        quantization.seed = rank
        quantization.zstd = rank
        info = lib.all_reduce(comm, x, quantization=quantization)
        assert 0.2 < info.wire_ratio < 0.27
        assert info.bytes_packed <= info.bytes_sent
        assert 0 < info.quantization_step < 0.2
        assert np.abs(x - sum(inputs)).max() <= 3 * info.quantization_step
        return x.tobytes()

    first, second = run_peers(2, body)
    assert first == second


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("codec", 99, "unknown codec 99"),
        ("block", 100, "block"),
        ("rounding", 2, "unknown rounding"),
        ("scale", 5, "scale"),
        ("partial", 1, "partial sums travel in f32 or bf16"),
    ],
)
def test_odd_formats_are_refused(
    lib: Library, coordinator: Any, field: str, value: int, text: str
) -> None:
    comm = lib.connect(lib.c.pyccl_coordinator_address(coordinator))
    quantization = lib.c.pyccl_quantization_of(lib.c.PYCCL_CODEC_FP4_E3M0)
    setattr(quantization, field, value)
    with pytest.raises(AssertionError, match=text) as raised:
        lib.all_reduce(comm, np.ones(64, np.float32), quantization=quantization)
    assert "PYCCL_INVALID_ARGUMENT" in str(raised.value)
    lib.c.pyccl_free(comm)
