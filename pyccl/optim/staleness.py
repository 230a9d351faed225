"""The outer step of CO2 (arXiv 2401.16265): heavy ball that trusts what is stale a little less, and
whose momentum does not run away.

A mean comes a window late: it is of where phi was before the last outer step, and is applied to
where that has brought it. With Lambda >= 1, the penalty, and a bound c of each element:

    momentum = clip(mu*momentum + mean / Lambda, -c, c)
    phi      = phi - lr*momentum

Nothing here communicates.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pyccl.errors import InvalidArgumentError
from pyccl.optim.layout import F32, Array, norm
from pyccl.optim.outer import OuterState
from pyccl.options import above_zero

Penalty = Callable[[float, float], float]
"""Of the gap and the distance, as adaptive_penalty() is."""

_WHOLE = slice(None)
# Which leaves what is not 0 alone, and what is 0 finite.
_TINY = 1e-12


def adaptive_penalty(gap: float, distance: float) -> float:
    """1 + gap / distance: 1 where phi has stayed, 2 where it has gone as far as the mean wants it
    to go. This is ours; the authors' code has a constant.

    gap: how far the last outer step has moved phi, which the mean knows nothing of.
    distance: how far the mean goes. Both are Euclidean norms in fp64, with the same bits on all
        peers, so any penalty that is plain arithmetic of them is too.
    """
    return 1.0 + gap / (distance + _TINY)


class CO2State(OuterState):
    """An OuterState with this step.

    gap_penalty: Lambda: a number from 1, or a function of (gap, distance) like adaptive_penalty().
    clip: c, above 0; None: there is no bound.

    Both numbers are part of what a newcomer gets, and so is the gap.
    """

    __slots__ = ("_bounds", "_gap", "_penalty")

    def __init__(
        self,
        names: Sequence[str],
        arrays: Sequence[Array],
        lr: float = 0.5,
        mu: float = 0.2,
        *,
        gap_penalty: float | Penalty = 1.0,
        clip: float | None = None,
        alike: Iterable[str] = (),
    ) -> None:
        self._penalty = gap_penalty if callable(gap_penalty) else None
        self._gap = np.zeros((), np.float64)
        self._bounds = np.array(
            [
                1.0 if callable(gap_penalty) else penalty_of(gap_penalty),
                np.inf if clip is None else above_zero(clip, "clip"),
            ],
            np.float32,
        )
        extra: dict[str, Array] = {"penalty, clip": self._bounds}
        if self._penalty is not None:
            extra["gap"] = self._gap
        super().__init__(names, arrays, lr, mu, nesterov=False, extra=extra, alike=alike)

    @property
    def gap(self) -> float:
        """How far the last outer step has moved phi; 0 where the penalty does not ask."""
        return float(self._gap)

    def apply(self, mean: F32, part: slice = _WHOLE) -> None:
        """As OuterState.apply(). Raises InvalidArgumentError also for a penalty below 1."""
        self._check_mean(mean, part)
        penalty, limit = (float(one) for one in self._bounds)
        if self._penalty is not None:
            penalty = penalty_of(self._penalty(self.gap, norm(mean)))
        self._move(mean, part, penalty, limit)
        if self._penalty is not None:
            self._gap[...] = self.lr * norm(self._momentum[part])
        self._set_step(self.step + 1)


def penalty_of(value: object) -> float:
    """Raises InvalidArgumentError for what would make a stale mean count more."""
    if not isinstance(value, numbers.Real) or not float(value) >= 1.0:
        raise InvalidArgumentError(
            f"gap_penalty is {value!r}, but must be a number from 1: the mean of a window ago is "
            "divided by it"
        )
    return float(value)
