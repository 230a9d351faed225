"""Named arrays as one flat vector of fp32: what outer steps compute with and peers exchange."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from pyccl.errors import InvalidArgumentError, InvalidTypeError

Array = np.ndarray[Any, Any]
F32 = npt.NDArray[np.float32]

# Elements worked on at once, so that temporaries stay in the cache however large the model is, and
# in memory that the process keeps: larger ones are asked of the system again for each block.
_BLOCK = 1 << 14
_FLOATING = ("float16", "bfloat16", "float32", "float64")


class Layout:
    """Where each array lies: one behind the other in the order given, each in C order.

    names, arrays: of fp16, bf16, fp32 or fp64 (numpy); they are not kept. Raises
        InvalidArgumentError and InvalidTypeError; the text names the array.
    """

    __slots__ = ("ends", "names", "shapes")

    def __init__(self, names: Sequence[str], arrays: Sequence[Array]) -> None:
        self.names = _distinct(names)
        if len(self.names) != len(arrays):
            raise InvalidArgumentError(f"there are {len(names)} names for {len(arrays)} arrays")
        self.shapes = tuple(
            _floating(one, name).shape for name, one in zip(self.names, arrays, strict=True)
        )
        self.ends: tuple[int, ...] = tuple(accumulate(math.prod(shape) for shape in self.shapes))
        if not self.ends[-1]:
            raise InvalidArgumentError("the arrays hold no elements at all")

    @property
    def size(self) -> int:
        return self.ends[-1]

    def views(self, flat: F32) -> Mapping[str, F32]:
        """By name and in shape."""
        return MappingProxyType(dict(self.cut(flat)))

    def cut(self, flat: F32) -> Iterator[tuple[str, F32]]:
        begin = 0
        for name, shape, end in zip(self.names, self.shapes, self.ends, strict=True):
            yield name, flat[begin:end].reshape(shape)
            begin = end

    def check(self, arrays: Sequence[Array]) -> None:
        """Raises InvalidArgumentError for other shapes than at the start, and InvalidTypeError."""
        if len(arrays) != len(self.names):
            raise InvalidArgumentError(
                f"there are {len(arrays)} arrays, but the state has {len(self.names)}"
            )
        for name, shape, one in zip(self.names, self.shapes, arrays, strict=True):
            if _floating(one, name).shape != shape:
                raise InvalidArgumentError(
                    f"{name!r} has shape {one.shape}, but {shape} in the state"
                )

    def flatten(self, arrays: Sequence[Array]) -> F32:
        """The arrays as one new vector; they are only read. Raises as check() does."""
        self.check(arrays)
        flat = np.empty(self.size, np.float32)
        for (_, target), one in zip(self.cut(flat), arrays, strict=True):
            # What is too large becomes infinite, and is refused where it would do harm.
            with np.errstate(over="ignore"):
                target[...] = one
        return flat

    def check_vector(self, given: object, what: str, size: int | None = None) -> F32:
        """`given` as a vector of this layout, or of a part of it; raises InvalidTypeError and
        InvalidArgumentError."""
        size = self.size if size is None else size
        if not isinstance(given, np.ndarray) or given.dtype != np.float32:
            kind = given.dtype if isinstance(given, np.ndarray) else type(given).__name__
            raise InvalidTypeError(f"{what} is of {kind}, but must be an array of float32")
        if given.shape != (size,):
            raise InvalidArgumentError(f"{what} has shape {given.shape}, but the state {(size,)}")
        return given

    def check_finite(self, vector: F32, what: str, begin: int = 0) -> F32:
        """`vector`, whose first element is that of place `begin`; raises InvalidArgumentError."""
        for part in parts(vector.size):
            finite = np.isfinite(vector[part])
            if not finite.all():
                at = part.start + int(np.argmin(finite))
                which = int(np.searchsorted(self.ends, begin + at, side="right"))
                raise InvalidArgumentError(
                    f"{what}: {vector[at]} in {self.names[which]!r}; the inner training, or an "
                    "outer learning rate that is too high, has spoiled it. Nothing was changed"
                )
        return vector

    def check_same(self, names: Sequence[str], shapes: Sequence[Sequence[int]]) -> None:
        """Raises InvalidArgumentError unless a state of these is one of this layout."""
        theirs = list(zip(names, map(tuple, shapes), strict=False))
        ours = list(zip(self.names, self.shapes, strict=True))
        if theirs != ours:
            count = sum(a == b for a, b in zip(theirs, ours, strict=False))
            raise InvalidArgumentError(
                f"the state is of other arrays: {len(theirs)} of which {count} are the same by "
                f"position, name and shape, but here are {len(ours)}"
            )


def norm(vector: F32) -> float:
    """Of a flat vector, in fp64, with the same bits on all machines: squares of fp32 are exact
    there, and what is added to what is said here, while numpy's own sums leave it open."""
    sums = np.zeros(min(vector.size, _BLOCK))
    for part in parts(vector.size):
        block = vector[part].astype(np.float64)
        sums[: block.size] += block * block
    while sums.size > 1:
        half = (sums.size + 1) // 2
        sums[: sums.size - half] += sums[half:]
        sums = sums[:half]
    return math.sqrt(sums[0]) if sums.size else 0.0


def parts(size: int) -> Iterator[slice]:
    return (slice(begin, begin + _BLOCK) for begin in range(0, size, _BLOCK))


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InvalidTypeError("names must be a sequence of texts, one for each array")
    if not names:
        raise InvalidArgumentError("there are no names, so no arrays to train")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidArgumentError(f"the name {name!r} stands for two arrays")
        seen.add(name)
    return tuple(names)


def _floating(one: Array, name: str) -> Array:
    if not isinstance(one, np.ndarray) or one.dtype.name not in _FLOATING:
        kind = one.dtype if isinstance(one, np.ndarray) else type(one).__name__
        raise InvalidTypeError(f"{name!r} is of {kind}, but must be an array of floating point")
    return one
