"""CO2 as an optimizer of torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pyccl.communicator import Communicator
from pyccl.optim.delayed import DelayedDiLoCo, check_delayed
from pyccl.optim.layout import Array
from pyccl.optim.outer import OuterState
from pyccl.optim.rounds import Exchange
from pyccl.optim.staleness import CO2State, Penalty, penalty_of
from pyccl.optim.wrapper import Inner

if TYPE_CHECKING:
    from typing_extensions import Unpack


class CO2(DelayedDiLoCo):
    """CO2 (arXiv 2401.16265): DelayedDiLoCo with heavy ball, a penalty for what is stale, and a
    bound of the momentum.

    gap_penalty: what a mean is divided by before it goes into the momentum: a number from 1, or a
        function like pyccl.optim.adaptive_penalty(), which is asked at each outer step and must
        give the same on all peers.
    clip: no element of the momentum comes further from 0; None: any does.

    The others are those of DelayedDiLoCo. Heavy ball a window late is stable for every curvature
    where outer_lr / gap_penalty < 1 - outer_momentum, and other values are refused (a function
    counts as 1, which is the least that it may give). The 1.0 and 0.5 of the authors' code are such
    ones: with them a direction diverges in which a window closes more than half of the distance to
    the optimum. The defaults here have room to spare.
    """

    def __init__(
        self,
        params: Iterable[Any],
        inner: Inner,
        comm: Communicator | None = None,
        *,
        sync_every: int | None = 48,
        outer_lr: float = 0.5,
        outer_momentum: float = 0.2,
        gap_penalty: float | Penalty = 1.0,
        clip: float | None = None,
        allow_unstable: bool = False,
        **exchange: Unpack[Exchange],
    ) -> None:
        self._bounded: dict[str, Any] = {"gap_penalty": gap_penalty, "clip": clip}
        # What a function gives may be as little.
        self._least = 1.0 if callable(gap_penalty) else penalty_of(gap_penalty)
        super().__init__(
            params, inner, comm, sync_every=sync_every, outer_lr=outer_lr,
            outer_momentum=outer_momentum, nesterov=False, allow_unstable=allow_unstable,
            **exchange,
        )  # fmt: skip

    def _check_rates(self, lr: float, mu: float) -> None:
        if not self._allow_unstable:
            check_delayed(lr, mu, nesterov=False, penalty=self._least)

    def _state_of(
        self, names: Sequence[str], arrays: Sequence[Array], lr: float, mu: float, nesterov: bool
    ) -> OuterState:
        return CO2State(names, arrays, lr, mu, alike=self._alike, **self._bounded)
