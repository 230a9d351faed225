"""The outer step of EDiT (arXiv 2412.07210): by modules, with a mean that garbage does not reach.

Peer m has the pseudo-gradient delta_m of a module and its norm n_m. Who is out of its own ordinary
counts nothing, the others the more the smaller their norm is:

    w_m  = exp((n_ref - n_m) / T), or 0
    mean = sum(w_m delta_m) / sum(w_m)
    mean = mean * min(1, c / (norm(mean) + 1e-6))

and with that mean goes the step of OuterState. The weights are softmax(-n / T) of those that count,
whatever n_ref is: all peers hold it alike, and it keeps the exponents small. It is
sum(w_m n_m) / sum(w_m) of the last step of this module; before the first one it is 0.

Numerators, divisors and norms are one vector, and so one sum of one set of peers. What follows from
it, for example that a module is left alone since nobody counts, is the same on all of them.

Nothing here communicates.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pyccl.errors import InvalidArgumentError
from pyccl.operations import ReduceOp
from pyccl.optim.layout import F32, Array, norm
from pyccl.optim.outer import OuterState
from pyccl.options import above_zero, integer

_WHOLE = slice(None)
# Of the exponent of a weight, to either side: enough for who counts to be all that counts, and
# little enough for fp32 to hold the products of weights and deltas.
_REACH = 40.0
_EPSILON = 1e-6


def weight_of(length: float, reference: float, temperature: float) -> float:
    """What a delta whose norm is `length` counts, to one of the norm `reference`.

    Norms that are further from it than 40 temperatures count as if they were that far. So if it is
    out of date by more than this, then the weights are closer to each other than they would be, for
    one step; they are never all 0, and a larger norm never counts more.
    """
    exponent = (reference - length) / temperature
    return math.exp(min(max(exponent, -_REACH), _REACH))


def by_module(names: Sequence[str]) -> dict[str, list[str]]:
    """Names of parameters by what is before their last dot, which is the module of torch that they
    are of; without one by ""."""
    modules: dict[str, list[str]] = {}
    for name in names:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    return modules


class NormDetector:
    """Whether a norm is out of the ordinary of those before: one peer's, for one module.

    It keeps a mean and a variance that forget, by 0.02 with each norm. A norm is an outlier if its
    z-score is above a threshold times max(1, the standard deviation of the last `warmup` scores).
    Only large ones are: who has learned little does no harm.

    z_threshold: above 0.
    warmup: norms before there are outliers, at least 1.
    start: what the mean begins with; None: the first norm. The authors' code has 0, which makes the
        mean too small and the variance too large until the warm-up is over.

    What is an outlier counts in mean and variance as if it were just at the threshold: it can't
    spoil them, and if norms stay large then that becomes the ordinary. Norms that have all been the
    same leave no variance, and then there are no outliers.
    """

    __slots__ = ("_scores", "_start", "_threshold", "_warmup", "count", "mean", "variance")

    RATE: ClassVar[float] = 0.02

    def __init__(
        self, z_threshold: float = 3.0, warmup: int = 120, start: float | None = None
    ) -> None:
        self._threshold = above_zero(z_threshold, "z_threshold")
        self._warmup = integer(warmup, "warmup", 1, 1 << 32)
        self._start = start
        self._scores: deque[float] = deque(maxlen=self._warmup)
        self.count = 0
        self.mean = 0.0 if start is None else float(start)
        self.variance = 0.0

    @property
    def limit(self) -> float:
        """Norms above it are outliers."""
        if self.count < self._warmup or self.variance <= 0.0:
            return math.inf
        spread = max(1.0, float(np.std(self._scores)))
        return self.mean + self._threshold * spread * math.sqrt(self.variance)

    def observe(self, value: float) -> None:
        """Takes note of a norm. One that is not finite says nothing."""
        if not math.isfinite(value):
            return
        value = min(value, self.limit)
        self.count += 1
        if self.count == 1 and self._start is None:
            self.mean = value
        distance = value - self.mean
        self.mean += self.RATE * distance
        self.variance += self.RATE * distance * (value - self.mean)
        self.variance *= 1.0 - self.RATE
        self._scores.append(self._score(value) if self.count > self._warmup else 0.0)

    def export(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "mean": self.mean,
            "variance": self.variance,
            "scores": list(self._scores),
        }

    def import_(self, state: Mapping[str, Any]) -> None:
        """Goes on where export() was called."""
        self.count, self.mean = int(state["count"]), float(state["mean"])
        self.variance = float(state["variance"])
        self._scores = deque(map(float, state["scores"]), maxlen=self._warmup)

    def _score(self, value: float) -> float:
        if self.variance <= 0.0:
            return 0.0
        return (value - self.mean) / math.sqrt(self.variance)


class Weighed(NamedTuple):
    """What EDiTState.weigh() gives. The last two are by module."""

    values: F32
    """What is summed over the peers, and goes to apply()."""
    norms: list[float]
    weights: list[float]


class EDiTState(OuterState):
    """An OuterState with this step.

    modules: how many of the arrays each has, by name, one behind the other and all of them.
    temperature: T, above 0; with infinity all count the same.
    clip: c, above 0; None: there is no bound.

    Both numbers and each module's n_ref are part of what a newcomer gets.
    """

    __slots__ = ("_bounds", "_places", "_references", "modules", "weight_sums")

    op: ClassVar[ReduceOp] = "sum"

    def __init__(
        self,
        names: Sequence[str],
        arrays: Sequence[Array],
        modules: Mapping[str, int],
        lr: float = 0.7,
        mu: float = 0.8,
        nesterov: bool = True,
        *,
        temperature: float = 1.0,
        clip: float | None = 10.0,
        alike: Iterable[str] = (),
    ) -> None:
        self.modules = tuple(modules)
        self._bounds = np.array(
            [
                above_zero(temperature, "temperature"),
                np.inf if clip is None else above_zero(clip, "clip"),
            ]
        )
        self._references = np.zeros(len(modules))
        counts = [
            integer(count, f"modules[{name!r}]", 1, 1 << 48) for name, count in modules.items()
        ]
        extra: dict[str, Array] = {
            f"norm/{name} of {count}": self._references[i : i + 1]
            for i, (name, count) in enumerate(zip(self.modules, counts, strict=True))
        }
        if sum(counts) != len(arrays):
            raise InvalidArgumentError(
                f"modules have {sum(counts)} arrays, but there are {len(arrays)}"
            )
        extra["temperature, clip"] = self._bounds
        super().__init__(names, arrays, lr, mu, nesterov, extra=extra, alike=alike)
        ends = [0, *(self.ends[last - 1] for last in accumulate(counts))]
        self._places = [slice(*pair) for pair in pairwise(ends)]
        self.weight_sums = [0.0] * len(modules)
        """By module, of the last step: what its sum was divided by; 0 where it was left alone."""

    def weigh(self, delta: F32, limits: Sequence[float]) -> Weighed:
        """What this peer contributes.

        delta: a vector as long as `params`; it is only read.
        limits: by module: a norm above it counts nothing, and neither does what is not finite.
        """
        count = len(self.modules)
        values = np.empty(delta.size + 2 * count, np.float32)
        norms, weights = [], []
        temperature = float(self._bounds[0])
        for i, place in enumerate(self._places):
            length = norm(delta[place])
            if length <= limits[i] and math.isfinite(length):
                reference = float(self._references[i])
                weight = np.float32(weight_of(length, reference, temperature))
                # What is too large becomes infinite, and with it the sum, which apply() leaves out.
                with np.errstate(over="ignore"):
                    np.multiply(delta[place], weight, out=values[place])
                    moment = weight * np.float32(length)
            else:
                weight = moment = np.float32(0.0)
                values[place] = 0.0
            values[delta.size + i], values[delta.size + count + i] = weight, moment
            norms.append(length)
            weights.append(float(weight))
        return Weighed(values, norms, weights)

    def apply(self, sums: F32, part: slice = _WHOLE) -> None:
        """One outer step, with the sum of what all peers have weighed. A module for which nobody
        counts stays as it is, with its momentum.

        Raises InvalidTypeError for another type, and InvalidArgumentError for another length and
        for a part that is not the whole; nothing has changed then.
        """
        size, count = self.ends[-1], len(self.modules)
        if part.indices(size) != (0, size, 1):
            raise InvalidArgumentError("a step of EDiT is of all parameters, not of a part")
        self._layout.check_vector(sums, "sums", size + 2 * count)
        clip = float(self._bounds[1])
        for i, place in enumerate(self._places):
            weight, moment = float(sums[size + i]), float(sums[size + count + i])
            length = norm(sums[place]) / weight if weight > 0 else math.nan
            counts = math.isfinite(length) and math.isfinite(weight)
            self.weight_sums[i] = weight if counts else 0.0
            if counts:
                # Divided by the factor of the clipping, so that each element is rounded once.
                divisor = weight * max(1.0, (length + _EPSILON) / clip)
                self._move(sums[place], place, divisor)
                if math.isfinite(moment):
                    self._references[i] = moment / weight
        self._set_step(self.step + 1)
