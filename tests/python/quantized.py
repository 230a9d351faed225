"""What quantized operations must give, computed with the numpy twin of the codecs."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyccl import Quantization

from .codecs import Format, decode, encode

Array = np.ndarray[Any, Any]

# Results are rounded by other chances than contributions.
RESULT_SALT = 0x5851F42D4C957F2D


def rounded(x: Array, q: Quantization, salt: int = 0) -> Array:
    """What becomes of numbers on their way, in f32."""
    form = Format(q.codec, q.block, q.scale)
    numbers = np.asarray(x, np.float32)
    wire = encode(numbers.ravel(), form, q.rounding, q.seed ^ salt)
    return decode(wire, form, numbers.size).reshape(numbers.shape)


def total(inputs: list[Array], q: Quantization, op: str, weights: list[float]) -> Array:
    """What the contributions of all ranks add up to, in f32 and in the order of the ranks."""
    sums: Array | None = None
    for x, weight in zip(inputs, weights, strict=True):
        if weight == 0:
            continue
        term = np.float32(weight) * rounded(x, q)
        sums = term if sums is None else sums + term
    assert sums is not None
    return sums if op == "sum" else sums / np.float32(sum(weights))


def all_reduced(
    inputs: list[Array], q: Quantization, op: str = "sum", weights: list[float] | None = None
) -> Array:
    """By direct: each contribution rounded once, their sum once more."""
    weights = weights or [1.0] * len(inputs)
    return rounded(total(inputs, q, op, weights), q, RESULT_SALT)


def all_reduced_on_ring(inputs: list[Array], q: Quantization, op: str, world: int) -> float:
    """The largest error that a ring may make: its sums are exact to f32 (or bf16), and its result
    is rounded once."""
    exact = np.sum(np.asarray(inputs, np.float64), axis=0)
    top = float(np.abs(np.asarray(inputs, np.float64)).sum(axis=0).max())
    each = 2.0**-8 if q.partial == "bf16" else 2.0**-24
    if op == "avg":
        exact, top = exact / world, top / world
    _, step = q.rounded(exact.astype(np.float32))
    return step * (0.5 if q.rounding == "nearest" else 1.0) * 1.02 + top * each * (world + 1)
