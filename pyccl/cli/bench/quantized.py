"""What must come out where numbers travel quantized, and how far from the plain result it may be.

The result is held against two things. By what the codec makes of each contribution and of their
sum, in the order of the ranks, every bit of it is known; that finds what is lost, doubled or mixed
up on the way. But it is computed by the same kernels as the result, so each element must also lie
near the plain one: within half a quantization step for each time that something was rounded. That
alone would say little, since with 4 bits the steps are as large as the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pyccl import Quantization
from pyccl.cli.bench.data import FLOATS, Array, Data


class Sent(NamedTuple):
    """What one peer's part of a call says about what it sent."""

    algorithm: str = ""
    step: float = 0.0
    """The largest distance between neighbouring values that it saw."""
    wire_bytes: float = 0.0
    plain_bytes: float = 0.0
    """What it would have sent without quantization."""


def sent_by(call: Any) -> Sent:
    """Makes a call and asks how it went; a peer that only looks on has sent nothing."""
    work = call(async_op=True)
    if work is None:
        return Sent()
    work.wait()
    info = work.info()
    plain = info.bytes_sent / info.wire_ratio
    return Sent(info.algorithm, info.quantization_step, info.bytes_sent, plain)


@dataclass(frozen=True)
class QuantizedData(Data):
    """The same elements, and what becomes of them on their way."""

    quantization: Quantization
    algorithm: str
    """By which all_reduce went."""

    def received(self, rank: int, count: int, at: int = 0) -> Array:
        return self._rounded(self.given(rank, count, at)).astype(self.type)

    def reduced(self, count: int, at: int = 0) -> Array:
        return self._total(count, at).astype(self.type)

    def all_reduced(self, count: int) -> Array:
        # Sums that pass along a ring are whole numbers, which f32 holds exactly.
        exact = self.algorithm == "ring"
        total = self._total(count, 0, exact=exact)
        return self._rounded(total).astype(self.type)

    def far(self, got: Array, plain: Array, allowed: float) -> Array:
        """Where the result is farther from the plain one than `allowed`."""
        # Besides, f32 and the type itself round: scales, products, sums and the result.
        fine = (self.world + 2) * max(FLOATS["float32"][1], FLOATS[self.dtype][1])
        wide = got.astype(np.float64)
        slack = allowed * (1 + fine) + fine * np.abs(wide)
        # Put so that what is no number counts as far.
        far: Array = ~(np.abs(wide - plain.astype(np.float64)) <= slack)
        return far

    def wrong_by(self, got: Array, want: Array, plain: Array, allowed: float) -> int:
        """How many elements are not what they must be, or farther off than they may be."""
        return int(np.count_nonzero((got != want) | self.far(got, plain, allowed)))

    def _total(self, count: int, at: int, *, exact: bool = False) -> Array:
        """Of all contributions, in f32 and in the order of the ranks."""
        total: Array = np.zeros(count, np.float32)
        for rank in range(self.world):
            one = self.given(rank, count, at)
            total += one.astype(np.float32) if exact else self._rounded(one)
        return total / np.float32(self.world) if self.op == "avg" else total

    def _rounded(self, x: Array) -> Array:
        numbers = x.astype(np.float32)
        self.quantization.rounded(numbers, out=numbers)
        return numbers
