"""DiLoCo whose outer steps are a window late, so that communication has a whole window's time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pyccl.communicator import Communicator
from pyccl.errors import InvalidArgumentError, PycclError
from pyccl.optim.diloco import DiLoCo
from pyccl.optim.layout import F32
from pyccl.optim.outer import outer_lr_of, outer_momentum_of
from pyccl.optim.report import SyncReport
from pyccl.optim.rounds import Agree, Exchange, Pending
from pyccl.optim.wrapper import Inner

if TYPE_CHECKING:
    from typing_extensions import Unpack


def delayed_lr_max(momentum: float, nesterov: bool = True) -> float:
    """Below which outer learning rate a step late is stable for every curvature.

    Where each window closes the share kappa of the distance to an optimum, the gradient of step t
    is kappa times that distance before step t - 1. With c = lr * kappa the distance follows
    z**3 - (1 + mu) z**2 + (mu + c (1 + mu)) z - c mu, whose roots lie within the unit circle below
    a bound on c, by Jury's test; heavy ball has c < 1 - mu. And kappa comes close to 1 wherever
    training converges within a window.

    momentum: from 0 to below 1.
    """
    outer_momentum_of(momentum)
    if momentum == 0.0 or not nesterov:
        return 1.0 - momentum
    square = momentum * momentum
    rest = 1.0 - square
    return (math.sqrt(rest * rest + 4.0 * square * (1.0 - momentum)) - rest) / (2.0 * square)


def check_delayed(lr: float, momentum: float, nesterov: bool, penalty: float = 1.0) -> None:
    """Raises InvalidArgumentError unless lr / penalty is below delayed_lr_max().

    penalty: what a mean is divided by.
    """
    outer_lr_of(lr)
    bound = penalty * delayed_lr_max(momentum, nesterov)
    if not lr < bound:
        raise InvalidArgumentError(
            f"outer_lr is {lr}, but must be below {bound:.3g} with outer_momentum {momentum}: a "
            "step that is a window late diverges from there on. Lower one of both, or say "
            "allow_unstable=True"
        )


class DelayedDiLoCo(DiLoCo):
    """DiLoCo with outer steps that are one window late: what a window has come to is sent at its
    end, and applied at the end of the next one, in which training goes on. So a sync may take as
    long as a window.

    Behind window t

        g    = phi - theta
        phi  = Outer(phi, the mean of the g of window t - 1)
        theta = phi;  the mean of g is on its way

    so each window lacks what the one before has learned, and learning rates and momenta that DiLoCo
    bears make this diverge. They are refused: outer_lr has to be below delayed_lr_max(), which is 1
    without momentum, 0.56 with 0.5 and 0.25 with 0.9 (allow_unstable=True takes them all the same).

    The others are those of DiLoCo. `last_sync` at the end of a window tells of the outer step that
    was sent a window ago; behind the first one there is none, and `steps` is a window late too.
    What a step that does not come about had to bring is sent again with the next window's. drain()
    applies what is on its way, behind the last window for example. A peer that comes takes part in
    the step under way without a contribution.
    """

    _trains_meanwhile = True
    _alike = ("a window late",)

    def __init__(
        self,
        params: Iterable[Any],
        inner: Inner,
        comm: Communicator | None = None,
        *,
        sync_every: int | None = 500,
        outer_lr: float = 0.7,
        outer_momentum: float = 0.0,
        nesterov: bool = True,
        allow_unstable: bool = False,
        **exchange: Unpack[Exchange],
    ) -> None:
        self._allow_unstable, self._nesterov = allow_unstable, nesterov
        self._check_rates(outer_lr, outer_momentum)
        self._pending: Pending | None = None
        self._sent: F32 | None = None
        super().__init__(
            params, inner, comm, sync_every=sync_every, outer_lr=outer_lr,
            outer_momentum=outer_momentum, nesterov=nesterov, **exchange,
        )  # fmt: skip
        self._send_nothing()

    def drain(self) -> SyncReport:
        """Waits for the outer step under way and applies it; all peers call it at the same place.
        What was learned since the end of the last window is kept for the next one."""
        self.last_sync, learned = self._end("now")
        self._begin_with(learned)
        self._send_nothing()
        return self.last_sync

    def leave(self) -> None:
        if self.comm is None:
            return
        _, learned = self._end("never")  # the others have this peer's part in it
        self._begin_with(learned)
        super().leave()
        self._send_nothing()

    @property
    def outer_lr(self) -> float:
        return self.outer.lr

    @outer_lr.setter
    def outer_lr(self, lr: float) -> None:
        self._check_rates(lr, self.outer.mu)
        self.outer.lr = lr

    @property
    def outer_momentum(self) -> float:
        return self.outer.mu

    @outer_momentum.setter
    def outer_momentum(self, mu: float) -> None:
        self._check_rates(self.outer.lr, mu)
        self.outer.mu = mu

    def _check_rates(self, lr: float, mu: float) -> None:
        if not self._allow_unstable:
            check_delayed(lr, mu, self._nesterov)

    def _outer_step(self) -> SyncReport:
        report, learned = self._end("later")
        report.consistency = self._consistency(learned)
        self._write_outer()
        self._send(learned, self.weight)
        return report

    def _end(self, agree: Agree) -> tuple[SyncReport, F32]:
        """The outer step under way, and what there is to send behind it: what was learned against
        the phi that the window began with, and what has not come about."""
        learned, sent = self._learned(), self._sent
        report = self._finish(agree)
        if not report.applied and sent is not None and np.isfinite(sent).all():
            learned += sent
        return report, learned

    def _begin_with(self, learned: F32) -> None:
        """The model is at phi, and this beyond it."""
        start = self.outer.empty()
        np.subtract(self.outer.params, learned, out=start)
        self._parameters.write(self.outer.cut(start))

    def _learned(self) -> F32:
        delta = self.outer.empty()
        self._parameters.subtract_from(self.outer.cut(self.outer.params), self.outer.cut(delta))
        return delta

    def _send(self, delta: F32, weight: float) -> None:
        self._sent = delta.copy()
        self._pending = self._rounds.begin(delta, weight)

    def _send_nothing(self) -> None:
        """So that there is always one under way, and newcomers need not know of any."""
        self._send(np.zeros_like(self.outer.params), 0.0)

    def _finish(self, agree: Agree) -> SyncReport:
        assert self._pending is not None
        self._rounds.settle(self._pending)
        pending, self._pending = self._pending, None
        try:
            return self._rounds.finish(pending, agree=agree)
        except PycclError:
            with contextlib.suppress(PycclError):
                self._send_nothing()
            raise

    def _export(self) -> dict[str, Any]:
        kept = super()._export()
        if self._pending is not None and self._sent is not None:
            kept["sent"] = torch.from_numpy(self._sent.copy())
            kept["sent_weight"] = self._pending.weight
        return kept

    def _import(self, state: dict[str, Any]) -> bool:
        self._check_rates(state.get("lr", self.outer.lr), state.get("mu", self.outer.mu))
        self._finish("never")
        try:
            goes_on = super()._import(state)
        except PycclError:
            self._send_nothing()
            raise
        if goes_on and "sent" in state:
            self._send(state["sent"].numpy().copy(), float(state["sent_weight"]))
        else:
            self._send_nothing()
        return goes_on
