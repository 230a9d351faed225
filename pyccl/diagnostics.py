"""Do peers still train alike? What a mean loss does not show, and a few numbers of each peer do.

After the Silent Inconsistency paper (arXiv 2602.14462): the mean loss of a run may look smooth
while its peers pull in different directions. Each peer gives its loss and its gradient, or its
pseudo-gradient, before they are averaged; all get

- loss dispersion: standard deviation and range of the losses,
- norm dispersion: standard deviation of the norms, also to their mean,
- direction consistency: the mean cosine over all pairs of peers: 1 if all point the same way, 0 if
  they have nothing to do with each other.

What is not finite is told of in the losses and norms of each peer, and left out of the rest, so one
peer that has run into garbage does not hide how the others are. There are no thresholds here: how
much is too much depends on model and data, and is the caller's to say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pyccl.errors import InvalidArgumentError, InvalidTypeError
from pyccl.options import integer

F32 = npt.NDArray[np.float32]

_SCALARS = 2


class Gathers(Protocol):
    """A communicator or a subgroup."""

    @property
    def all_gather(self) -> Any: ...


@dataclass(frozen=True)
class Consistency:
    """Of the peers that took part; the same on all of them, but for the bits of `cosine`."""

    peers: int
    losses: tuple[float, ...]
    """By rank; NaN of peers that gave none."""
    norms: tuple[float, ...]
    """By rank."""
    loss_std: float
    """Over those that gave a finite one: the square root of the mean square distance from the mean;
    NaN if nobody did."""
    loss_range: float
    norm_std: float
    """Over those that are finite, as loss_std."""
    norm_cv: float
    """norm_std to their mean; NaN where that is 0."""
    cosine: float
    """The mean over all pairs of vectors that are finite and not 0; NaN for less than two."""


class Sketch:
    """A short vector in the place of a long one, with about the same angles: CountSketch (Charikar,
    Chen and Farach-Colton 2002), in which each element is added to one of `width` places, with a
    sign, by a hash of its position.

    The cosine of two sketches has the expectation of that of the vectors and a standard error of
    no more than about sqrt(2 / width).
    """

    def __init__(self, size: int, width: int = 4096) -> None:
        integer(size, "size", 1, 1 << 48)
        integer(width, "width", 1, 1 << 24)
        self._width = width
        # SplitMix64's finaliser, so all peers hash alike.
        x = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
        self._places = ((x >> np.uint64(1)) % np.uint64(width)).astype(np.int32)
        self._signs = np.where(x & np.uint64(1), np.float32(1), np.float32(-1))

    def of(self, vector: F32) -> npt.NDArray[np.float64]:
        if vector.shape != self._signs.shape:
            raise InvalidArgumentError(
                f"the vector has shape {vector.shape}, but the sketch is of {self._signs.shape}"
            )
        found: npt.NDArray[Any] = np.bincount(self._places, vector * self._signs, self._width)
        return found.astype(np.float64, copy=False)


class Diagnostics:
    """What peers tell each other of their losses and gradients, with one all-gather of a few
    kilobytes.

    comm: a Communicator or a Subgroup, or None to be alone.
    width: numbers of the sketch by which directions are compared; see Sketch.
    """

    def __init__(self, comm: Gathers | None, width: int = 4096) -> None:
        self._comm = comm
        self._width = integer(width, "width", 1, 1 << 24)
        self._sketch: Sketch | None = None

    def measure(
        self, vector: F32, loss: float | None = None, timeout: float | None = None
    ) -> Consistency:
        """All peers call it, before their vectors are averaged.

        vector: fp32, flat, as long on all peers; it is only read.
        loss: of this peer; None: it has none to tell.

        Raises InvalidTypeError, InvalidArgumentError and the errors of all_gather().
        """
        if not isinstance(vector, np.ndarray) or vector.dtype != np.float32 or vector.ndim != 1:
            raise InvalidTypeError("the vector must be a flat numpy array of float32")
        if self._sketch is None:
            self._sketch = Sketch(vector.size, self._width)
        told = np.empty(_SCALARS + self._width, np.float64)
        told[0] = math.nan if loss is None else float(loss)
        with np.errstate(over="ignore", invalid="ignore"):
            told[1] = float(np.sqrt(np.square(vector, dtype=np.float64).sum()))
            told[_SCALARS:] = self._sketch.of(vector)
        if self._comm is None:
            return consistency(told[None])
        return consistency(self._comm.all_gather(told, timeout=timeout))


def consistency(told: npt.NDArray[np.float64]) -> Consistency:
    """From what all peers have told: a row for each of loss, norm and the elements of its vector,
    or of a sketch of that."""
    losses, norms, vectors = told[:, 0], told[:, 1], told[:, _SCALARS:]
    given, known = losses[np.isfinite(losses)], norms[np.isfinite(norms)]
    norm_std = float(known.std()) if known.size else math.nan
    mean = float(known.mean()) if known.size else math.nan
    return Consistency(
        peers=len(told),
        losses=tuple(losses.tolist()),
        norms=tuple(norms.tolist()),
        loss_std=float(given.std()) if given.size else math.nan,
        loss_range=float(given.max() - given.min()) if given.size else math.nan,
        norm_std=norm_std,
        norm_cv=norm_std / mean if mean > 0 else math.nan,
        cosine=mean_cosine(vectors),
    )


def mean_cosine(vectors: npt.NDArray[np.float64]) -> float:
    """Over all pairs of rows, by way of the sum U of the N unit vectors:
    (|U|**2 - N) / (N (N - 1)). Rows that are 0 or not finite have no direction and are left out;
    NaN for less than two others."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.square(vectors).sum(1))
    there = np.isfinite(lengths) & (lengths > 0)
    count = int(there.sum())
    if count < 2:
        return math.nan
    whole = (vectors[there] / lengths[there, None]).sum(0)
    return float((np.square(whole).sum() - count) / (count * (count - 1)))
