"""The options of quantized operations: what they accept, cost and do to arrays."""

from __future__ import annotations

import array
import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import pyccl
from pyccl import Quantization

from . import codecs as twin
from .codecs import CODECS, Format
from .test_dlpack import Tensor


def test_the_defaults() -> None:
    q = Quantization()
    assert q == Quantization("int8", block=256, rounding="nearest", scale="f32", partial="f32")
    assert (q.lossless, q.seed) == (None, 0)
    assert 8 * q.wire_bytes(256) / 256 == 8.125


@pytest.mark.parametrize("short", ["e4m3", "e5m2", "e3m0", "e2m1"])
def test_short_names_are_the_same_codec(short: Any) -> None:
    (name,) = (one for one in CODECS if one.endswith(short))
    assert Quantization(short).codec == name
    assert Quantization(short) == Quantization(name)  # type: ignore[arg-type]


def test_every_codec_is_known() -> None:
    assert list(pyccl._core.codecs) == list(CODECS)
    for name in CODECS:
        assert Quantization(name).codec == name  # type: ignore[arg-type]


def test_it_is_a_value() -> None:
    q = Quantization("int4", block=64, seed=np.uint64(7))  # type: ignore[arg-type]
    assert q == Quantization("int4", block=np.int32(64), seed=7)  # type: ignore[arg-type]
    assert hash(q) == hash(Quantization("int4", block=64, seed=7))
    assert type(q.block) is type(q.seed) is int
    assert dataclasses.replace(q, seed=8) != q
    assert dataclasses.replace(q, seed=8).codec == "int4"
    with pytest.raises(dataclasses.FrozenInstanceError):
        q.seed = 9  # type: ignore[misc]
    with pytest.raises(TypeError):
        Quantization("int8", 64)  # type: ignore[misc]


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"codec": "int2"}, "codec is 'int2', but must be one of int8, int8_minmax"),
    ({"codec": "none"}, "codec is 'none', but"),
    ({"codec": 1}, "codec is 1, but"),
    ({"codec": ["int8"]}, "codec is"),
    ({"block": 0}, "block is 0, but must be from 32 to 1024"),
    ({"block": 2048}, "block is 2048, but must be from 32 to 1024"),
    ({"block": 100}, "block is 100, but must be a multiple of 32"),
    ({"block": 64.0}, "block is 64.0, but"),
    ({"rounding": "up"}, "rounding is 'up', but must be one of nearest, stochastic"),
    ({"scale": "f16"}, "scale is 'f16', but must be one of f32, bf16"),
    ({"partial": "f64"}, "partial is 'f64', but must be one of f32, bf16"),
    ({"lossless": "gzip"}, "lossless is 'gzip', but must be None or 'zstd'"),
    ({"lossless": True}, "lossless is True, but"),
    ({"seed": -1}, "seed is -1, but must be from 0 to 18446744073709551615"),
    ({"seed": 1 << 64}, "seed is 18446744073709551616, but"),
    ({"seed": "1"}, "seed is '1', but"),
]


@pytest.mark.parametrize(("options", "text"), FAULTS)
def test_what_is_wrong_is_said(options: dict[str, Any], text: str) -> None:
    with pytest.raises(pyccl.InvalidArgumentError, match=text):
        Quantization(**options)


def test_of_takes_what_operations_take() -> None:
    q = Quantization("int4")
    assert Quantization.of(None) is None
    assert Quantization.of(q) is q
    assert Quantization.of("e3m0") == Quantization("fp4_e3m0")
    with pytest.raises(pyccl.InvalidArgumentError, match="codec is 'int9', but"):
        Quantization.of("int9")  # type: ignore[arg-type]
    with pytest.raises(pyccl.InvalidTypeError, match="quantization is 8, but must be a"):
        Quantization.of(8)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("scale", ["f32", "bf16"])
def test_wire_bytes(name: Any, scale: Any) -> None:
    for block in (32, 256):
        q, form = Quantization(name, block=block, scale=scale), Format(name, block, scale)
        for count in (0, 1, block, block + 1, 10 * block - 1):
            assert q.wire_bytes(count) == form.blocks(count) * form.block_bytes
    with pytest.raises(pyccl.InvalidArgumentError, match="count is -1"):
        q.wire_bytes(-1)


def test_rounded_is_what_the_others_receive() -> None:
    x = np.random.default_rng(0).standard_normal((7, 501)).astype(np.float32)
    before = x.copy()
    roundings: Any = ("nearest", "stochastic")
    for rounding in roundings:
        q = Quantization("int4", block=64, rounding=rounding, scale="bf16", seed=5)
        found, step = q.rounded(x)
        form = Format("int4", 64, "bf16")
        wire = twin.encode(x.ravel(), form, rounding, 5)
        np.testing.assert_array_equal(found, twin.decode(wire, form, x.size).reshape(x.shape))
        assert step == twin.largest_step(wire, form)
        assert isinstance(step, float)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16"])
def test_rounded_keeps_shape_and_type(dtype: str) -> None:
    x = np.linspace(-3, 3, 660).reshape(2, 330).astype(twin.dtype_of(dtype))
    found, step = Quantization("int8").rounded(x)
    assert (found.dtype, found.shape) == (x.dtype, x.shape)
    assert np.abs(found.astype(np.float64) - x.astype(np.float64)).max() <= step / 2 + 0.01
    out = np.empty_like(x)
    given, _ = Quantization("int8").rounded(x, out=out)
    assert given is out
    assert out.tobytes() == found.tobytes()
    Quantization("int8").rounded(x, out=x)
    assert x.tobytes() == found.tobytes()


def test_rounded_takes_lists_and_any_buffer() -> None:
    x = [np.ones((2, 3)), array.array("f", [0.5, 1.0]), np.zeros(0, np.float32), np.array(2.0)]
    (ones, half, empty, single), step = Quantization().rounded(x)
    np.testing.assert_allclose(ones, np.ones((2, 3)), rtol=1e-6)
    np.testing.assert_allclose(half, [0.5, 1.0], atol=0.004)
    assert empty.shape == (0,)
    assert single == pytest.approx(2.0)
    assert step == pytest.approx(2 / 127)
    tensor, _ = Quantization().rounded(Tensor(np.full(3, 2.0, np.float32)))
    np.testing.assert_allclose(tensor, 2.0, rtol=1e-6)


def test_blocks_begin_anew_in_each_array() -> None:
    x = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    q = Quantization("e2m1", block=256, rounding="stochastic", seed=1)
    (one, other), _ = q.rounded([x, x])
    np.testing.assert_array_equal(one, other)


def test_long_arrays_are_one_sequence_of_blocks() -> None:
    x = np.random.default_rng(0).standard_normal(300_001).astype(np.float32)
    form = Format("fp8_e4m3", 32)
    found, _ = Quantization("e4m3", block=32, rounding="stochastic", seed=9).rounded(x)
    wire = twin.encode(x, form, "stochastic", 9)
    np.testing.assert_array_equal(found, twin.decode(wire, form, x.size))


def test_rounded_refuses_what_is_no_array_of_floating_point() -> None:
    q = Quantization()
    with pytest.raises(pyccl.InvalidTypeError, match=r"x holds i64; only f32 f64 f16 bf16 can"):
        q.rounded(np.arange(3))
    with pytest.raises(pyccl.InvalidTypeError, match=r"x\[1\] holds u8"):
        q.rounded([np.zeros(2), b"ab"])
    with pytest.raises(pyccl.InvalidTypeError, match="x is of type float, not an array"):
        q.rounded(1.0)
    with pytest.raises(pyccl.InvalidArgumentError, match="x is an empty list"):
        q.rounded([])
    with pytest.raises(pyccl.InvalidArgumentError, match="not C-contiguous"):
        q.rounded(np.zeros((4, 4))[:, :2])
    with pytest.raises(pyccl.InvalidArgumentError, match="differ in size"):
        q.rounded(np.zeros(3), out=np.zeros(4))
    with pytest.raises(pyccl.InvalidTypeError, match="out holds f32, but x holds f64"):
        q.rounded(np.zeros(3), out=np.zeros(3, np.float32))


def test_what_lies_beyond_the_type_becomes_infinite() -> None:
    x = np.array([65504] + [0] * 31, np.float16)
    scales: Any = ("f32", "bf16")
    for scale in scales:
        found, _ = Quantization("int4", block=32, scale=scale).rounded(x)
        assert found[0] == (65504 if scale == "f32" else found[0])
        assert not np.isnan(found).any()
    huge, _ = Quantization("int8").rounded(np.array([1e300, 1.0]))
    assert np.isnan(huge).all()
    spoiled, _ = Quantization("int8").rounded(np.array([1, np.inf], ml_dtypes.bfloat16))
    assert np.isnan(spoiled.astype(np.float32)).all()
