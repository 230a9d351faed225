"""What the peers put in and what must come out, element by element, as numpy computes it.

Element i of what a peer gives is (i + 3 * rank) mod p for a prime p: blocks of a size that is a
power of two differ from each other, and so do the peers. p is so small that every sum over the
group is a whole number that the type holds exactly; only averages are compared with a tolerance.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyccl.errors import InvalidArgumentError

Array = np.ndarray[Any, Any]

# By type: how far whole numbers are exact (sums of integers wrap around in numpy as elsewhere), and
# the distance from 1 to the next number.
FLOATS = {
    "float32": (2**24, 2.0**-23), "float64": (2**53, 2.0**-52),
    "float16": (2**11, 2.0**-10), "bfloat16": (2**8, 2.0**-7),
}  # fmt: skip
_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATS, *_INTEGERS)
SHORT_DTYPES = {
    "f32": "float32", "f64": "float64", "f16": "float16", "bf16": "bfloat16",
    **{name.replace("uint", "u").replace("int", "i"): name for name in _INTEGERS},
}  # fmt: skip
_PRIMES = (113, 61, 31, 13, 7, 5, 3, 2)
"""The first one fits into every type."""

_UFUNCS = {
    "sum": np.add, "avg": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum,
    "band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor,
}  # fmt: skip


def numpy_type(name: str) -> np.dtype[Any]:
    """The type of that name, also where numpy has none."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        from ml_dtypes import bfloat16
    except ImportError as error:
        raise InvalidArgumentError("bfloat16 needs ml_dtypes: pip install ml_dtypes") from error
    found: np.dtype[Any] = np.dtype(bfloat16)
    return found


@dataclass(frozen=True)
class Data:
    """The elements of one run."""

    dtype: str
    op: str
    world: int

    def given(self, rank: int, count: int, at: int = 0) -> Array:
        """Elements `at` to `at + count` of what a peer gives."""
        return self._repeated(self._period(rank), count, at)

    def received(self, rank: int, count: int, at: int = 0) -> Array:
        """The same as the others get it."""
        return self.given(rank, count, at)

    def reduced(self, count: int, at: int = 0) -> Array:
        """The same of the result of a reduction over all peers, at the peer that computes it."""
        every = [self._period(rank) for rank in range(self.world)]
        # Products may leave the range of their type: infinite here as there.
        with np.errstate(over="ignore"):
            period: Array = functools.reduce(_UFUNCS[self.op], every)
        if self.op == "avg":
            period = (period.astype(np.float64) / self.world).astype(self.type)
        return self._repeated(period, count, at)

    def all_reduced(self, count: int) -> Array:
        """The first elements of that result as all peers get it."""
        return self.reduced(count)

    def empty(self, *shape: int) -> Array:
        return np.empty(shape, self.type)

    def poison(self, array: Array) -> None:
        """Puts in what no peer gives, so that what is never written is seen."""
        array.fill(_PRIMES[0] + 1)

    def wrong(self, got: Array, want: Array) -> int:
        """How many elements differ from what they must be."""
        if self.op != "avg" or self.dtype not in FLOATS:
            return int(np.count_nonzero(got != want))
        slack = 2 * FLOATS[self.dtype][1] * np.abs(want.astype(np.float64))
        difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
        # Put so that what is no number counts as wrong.
        return int(np.count_nonzero(~(difference <= slack)))

    @property
    def itemsize(self) -> int:
        return self.type.itemsize

    @functools.cached_property
    def type(self) -> np.dtype[Any]:
        return numpy_type(self.dtype)

    @functools.cached_property
    def _prime(self) -> int:
        exact = FLOATS[self.dtype][0] if self.dtype in FLOATS else 2**63
        fitting = [prime for prime in _PRIMES if self.world * (prime - 1) <= exact]
        return fitting[0] if fitting else _PRIMES[-1]

    def _period(self, rank: int) -> Array:
        numbers = (np.arange(self._prime) + 3 * rank) % self._prime
        if self.op == "prod":
            numbers = 1 + numbers % 2
        return numbers.astype(self.type)

    def _repeated(self, period: Array, count: int, at: int) -> Array:
        if count == 0:
            return self.empty(0)
        return np.resize(np.roll(period, -at), count)
