"""What the peers of a test put in, and how what comes out is compared."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]

DTYPES = ["f4", "f8", "f2", "bf16", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
SIZES = [0, 1, 7, 4096]
LARGE = (1 << 20) + 3


def type_of(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bf16" else name)


def given(rank: int, size: int, dtype: str, salt: int = 0) -> Array:
    """What a rank contributes: whole numbers so small that no order of adding them rounds."""
    numbers = (np.arange(size) * 7 + 13 * rank + salt) % 11
    return numbers.astype(np.int64).astype(type_of(dtype))


def total(world: int, size: int, dtype: str) -> Array:
    whole = sum(given(rank, size, dtype).astype(np.int64) for rank in range(world))
    return np.asarray(whole, np.int64).astype(type_of(dtype))


def same(found: Any, expected: Array) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()
