"""The codecs of quantized payloads a second time, in numpy: what the core's bytes must equal.

Written from the definition and not from the kernels, and shares nothing with them. All arithmetic
is f32, rounded to nearest even, in whole arrays of (blocks, numbers of a block).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

MAX = np.finfo(np.float32).max
BF16_MAX = np.float32(2.0**128 - 2.0**120)
NAN_BITS = 0x7FC00000
INFINITY_BITS = 0x7F800000


@dataclass(frozen=True)
class Codec:
    """What the numbers of a codec are."""

    top: int  # the largest value of a code
    bits: int
    minmax: bool = False
    # Of floating point: the exponent of the least normal value, and how far a code is to be shifted
    # to lie where f32 has its exponent and mantissa.
    emin: int | None = None
    shift: int = 0
    code_max: int = 0
    step: int = 1  # of the values that lie farthest apart

    @property
    def floating(self) -> bool:
        return self.emin is not None


CODECS = {
    "int8": Codec(127, 8),
    "int8_minmax": Codec(255, 8, minmax=True),
    "int4": Codec(7, 4),
    "int4_minmax": Codec(15, 4, minmax=True),
    "fp8_e4m3": Codec(448, 8, emin=-6, shift=20, code_max=0x7E, step=32),
    "fp8_e5m2": Codec(57344, 8, emin=-14, shift=21, code_max=0x7B, step=8192),
    "fp4_e3m0": Codec(16, 4, emin=-2, shift=23, code_max=7, step=8),
    "fp4_e2m1": Codec(6, 4, emin=0, shift=22, code_max=7, step=2),
}


@dataclass(frozen=True)
class Format:
    name: str = "int8"
    block: int = 256
    scale: str = "f32"

    @property
    def codec(self) -> Codec:
        return CODECS[self.name]

    @property
    def head_bytes(self) -> int:
        return (4 if self.scale == "f32" else 2) * (2 if self.codec.minmax else 1)

    @property
    def block_bytes(self) -> int:
        return self.head_bytes + self.block * self.codec.bits // 8

    def blocks(self, count: int) -> int:
        return -(-count // self.block)


def bits_of(x: Any) -> Array:
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


def float_of(bits: Any) -> Array:
    return np.ascontiguousarray(bits, np.uint32).view(np.float32)


def widen(x: Array) -> Array:
    with np.errstate(all="ignore"):
        return x.astype(np.float32)


def narrow(x: Array, dtype: Any) -> Array:
    with np.errstate(all="ignore"):
        return x.astype(dtype)


def draws(seed: int, first_block: int, blocks: int, block: int) -> Array:
    """32 bits for each place of each block."""
    number = np.uint64(first_block) + np.arange(blocks, dtype=np.uint64)
    z = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * (number + np.uint64(1))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    key = (z & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    place = np.arange(block, dtype=np.uint32) * np.uint32(0x9E3779B9)
    h = key[:, None] + place[None, :]
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    return h


def scale_max(top: int, scale: str) -> np.float32:
    """The largest scale whose product with the largest value is finite."""
    unit = 0x10000 if scale == "bf16" else 1
    bits = bits_of(MAX).item() & ~(unit - 1)
    low, high = 0, bits // unit  # low fits, and what is above high does not
    with np.errstate(over="ignore"):
        while low < high:
            middle = (low + high + 1) // 2
            if np.isfinite(float_of(middle * unit)[0] * np.float32(top)):
                low = middle
            else:
                high = middle - 1
    return np.float32(float_of(low * unit).item())


def _up_to_bf16(s: Array) -> Array:
    """Of numbers >= 0."""
    return float_of((bits_of(s) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000))


def _down_to_bf16(x: Array) -> Array:
    bits = bits_of(x)
    negative = bits >> np.uint32(31) != 0
    away = (bits + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)
    lowest = bits_of(-BF16_MAX)
    return float_of(
        np.where(negative, np.minimum(away, lowest), bits & np.uint32(0xFFFF0000)).astype(np.uint32)
    )


def _quotient(width: Array, top: int) -> Array:
    """width / top, and so large that top times it reaches width."""
    s = width / np.float32(top)
    return np.where(s * np.float32(top) < width, np.nextafter(s, np.float32(np.inf)), s)


def _by_scale(x: Array, s: Array) -> Array:
    return np.where(s > 0, x / np.where(s > 0, s, np.float32(1)), np.float32(0))


def _whole(y: Array, h: Array | None) -> Array:
    if h is None:
        return np.rint(y)
    u = (h >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    below = np.floor(np.abs(y))
    c = below + (u < np.abs(y) - below).astype(np.float32)
    return np.where(y < 0, -c, c)


def _symmetric(x: Array, form: Format, h: Array | None) -> tuple[Array, Array, Array]:
    """(scales, least numbers, codes) of finite blocks."""
    codec = form.codec
    s = _quotient(np.abs(x).max(axis=1, keepdims=True), codec.top)
    if form.scale == "bf16":
        s = _up_to_bf16(s)
    s = np.minimum(s, scale_max(codec.top, form.scale))
    if not codec.floating:
        codes = np.clip(_whole(_by_scale(x, s), h), -codec.top, codec.top).astype(np.int32)
        return s, np.zeros_like(s), codes & (0xFF if codec.bits == 8 else 0xF)
    assert codec.emin is not None
    t = np.float32(2.0**codec.emin)
    origin, one = bits_of(t), np.uint32(1 << 23)
    y = _by_scale(np.abs(x), s)
    b = np.where(y < t, bits_of(y + t) - origin, bits_of(y) - origin + one).astype(np.uint32)
    shift = np.uint32(codec.shift)
    if h is None:
        half = np.uint32((1 << (codec.shift - 1)) - 1)
        codes = (b + half + ((b >> shift) & np.uint32(1))) >> shift
    else:
        codes = (b + (h >> np.uint32(32 - codec.shift))) >> shift
    codes = np.minimum(codes, np.uint32(codec.code_max))
    sign = np.uint32(1 << (codec.bits - 1))
    return s, np.zeros_like(s), np.where((codes != 0) & (x < 0), codes | sign, codes)


def _minmax(x: Array, form: Format, h: Array | None) -> tuple[Array, Array, Array]:
    top = form.codec.top
    # A zero of either sign becomes +0.
    low = x.min(axis=1, keepdims=True) + np.float32(0)
    high = x.max(axis=1, keepdims=True) + np.float32(0)
    if form.scale == "bf16":
        low = _down_to_bf16(low)
    half = np.where(np.isinf(high - low), np.float32(0.5), np.float32(1))
    width = np.maximum(np.float32(0), high * half - low * half)
    s = _quotient(width, top) / half
    if form.scale == "bf16":
        s = np.minimum(_up_to_bf16(s), BF16_MAX)
    y = np.maximum(np.float32(0), _by_scale(x * half - low * half, s * half))
    return s, low, np.clip(_whole(y, h), 0, top).astype(np.int32)


def _field(values: Array, form: Format) -> Array:
    """The bytes of scales or least numbers."""
    bits = bits_of(values)
    if form.scale == "bf16":
        return (bits >> np.uint32(16)).astype("<u2").view(np.uint8)
    return bits.astype("<u4").view(np.uint8)


def encode(
    x: Array, form: Format, rounding: str = "nearest", seed: int = 0, first_block: int = 0
) -> Array:
    """The bytes of f32 numbers."""
    count = x.size
    blocks = form.blocks(count)
    if blocks == 0:
        return np.zeros(0, np.uint8)
    # What fills the last block up must not change its scale.
    padded = np.pad(x.ravel(), (0, blocks * form.block - count), mode="edge")
    padded = padded.reshape(blocks, form.block)
    magnitude = bits_of(padded) & np.uint32(0x7FFFFFFF)
    spoiled = (magnitude >= INFINITY_BITS).any(axis=1, keepdims=True)
    h = None
    if rounding == "stochastic":
        h = draws(seed, first_block, blocks, form.block)
    make = _minmax if form.codec.minmax else _symmetric
    with np.errstate(all="ignore"):
        s, low, codes = make(np.where(spoiled, np.float32(0), padded), form, h)
    s = np.where(spoiled, float_of(NAN_BITS), s)
    codes = codes.astype(np.uint8).ravel()
    codes[count:] = 0
    codes = codes.reshape(blocks, form.block)
    if form.codec.bits == 4:
        codes = codes[:, 0::2] | codes[:, 1::2] << np.uint8(4)
    heads = [_field(s, form)] + ([_field(low, form)] if form.codec.minmax else [])
    return np.concatenate([*heads, codes], axis=1).ravel()


def heads_of(wire: Array, form: Format) -> tuple[Array, Array]:
    """The scales and least numbers of all blocks, as columns."""
    raw = np.ascontiguousarray(wire.reshape(-1, form.block_bytes)[:, : form.head_bytes])
    if form.scale == "bf16":
        values = raw.view("<u2").astype(np.uint32) << np.uint32(16)
    else:
        values = raw.view("<u4").astype(np.uint32)
    fields = float_of(values)
    return fields[:, :1], fields[:, 1:] if form.codec.minmax else np.zeros_like(fields[:, :1])


def decode(wire: Array, form: Format, count: int) -> Array:
    """The f32 numbers that the bytes stand for."""
    if wire.size == 0:
        return np.zeros(0, np.float32)
    codec = form.codec
    s, low = heads_of(wire, form)
    codes = wire.reshape(-1, form.block_bytes)[:, form.head_bytes :]
    if codec.bits == 4:
        codes = np.stack([codes & np.uint8(0xF), codes >> np.uint8(4)], axis=2)
        codes = codes.reshape(codes.shape[0], form.block)
    with np.errstate(all="ignore"):
        x = _values(codes.astype(np.int32), s, low, codec)
    return np.where(_spoiled(s, low), float_of(NAN_BITS), x).ravel()[:count]


def _spoiled(s: Array, low: Array) -> Array:
    return ~(np.isfinite(s) & np.isfinite(low))


def _values(codes: Array, s: Array, low: Array, codec: Codec) -> Array:
    if codec.minmax:
        c, half = codes.astype(np.float32), np.float32(0.5)
        huge = np.minimum(low * half + c * (s * half), MAX * half) * np.float32(2)
        return np.where(s >= np.float32(2.0**119), huge, np.minimum(low + c * s, MAX))
    sign = 1 << (codec.bits - 1)
    if not codec.floating:
        return ((codes ^ sign) - sign).astype(np.float32) * s
    assert codec.emin is not None
    t = np.float32(2.0**codec.emin)
    origin, one = bits_of(t), np.uint32(1 << 23)
    b = (codes & (sign - 1)).astype(np.uint32) << np.uint32(codec.shift)
    v = np.where(b < one, float_of(b + origin) - t, float_of(b - one + origin)) * s
    return np.where(codes & sign, -v, v)


def largest_step(wire: Array, form: Format) -> float:
    if wire.size == 0:
        return 0.0
    s, low = heads_of(wire, form)
    with np.errstate(all="ignore"):
        steps = np.where(_spoiled(s, low), np.float32(0), s * np.float32(form.codec.step))
    return float(np.maximum(np.float32(0), steps).max())


def dtype_of(name: str) -> np.dtype[Any]:
    names = {"f32": "f4", "f64": "f8", "f16": "f2", "bf16": ml_dtypes.bfloat16}
    return np.dtype(names[name])
