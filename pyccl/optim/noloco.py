"""NoLoCo as an optimizer of torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from pyccl.communicator import Communicator
from pyccl.optim.gossip import NoLoCoState
from pyccl.optim.meetings import Meetings
from pyccl.optim.report import SyncReport
from pyccl.optim.wrapper import Inner, OuterOptimizer

_VECTORS = ("params", "momentum")


class NoLoCo(OuterOptimizer):
    """NoLoCo (arXiv 2506.10911): peers train for themselves for `sync_every` steps, and then meet
    one other, at each step another one. There is no operation of all but at boundaries, so a step
    takes no longer with many peers, and whose partner is slow or lost holds up nobody else.

    params, inner, comm: as for DiLoCo, with one such optimizer for a communicator; a newcomer makes
        it right behind connect(), for members wait for it at the boundary that has admitted it.
        Peers begin with the same values, and drift apart: each has its own outer parameters, in
        `outer`.
    sync_every: inner steps of a window; None: sync() says when. The same on all peers.
    group: peers that meet, 2 or more.
    alpha: momentum. beta: outer learning rate. gamma: the pull of the group; beta if left out,
        which halves what is sent. From 2*(1 - alpha**2) on peers drift apart, and it is refused.
    seed: who meets whom follows from it, from the number of the step and from the members.
    admit_every: outer steps between two boundaries, at which all wait for each other: newcomers are
        admitted there, and who is lost is left out from there on. None: sync_members() says when.
    timeout: seconds to wait for a partner. A peer whose partner does not come in time, or is lost,
        takes the step alone. At boundaries all wait for as long as the communicator lets them.

        opt = pyccl.optim.NoLoCo(
            model.parameters(), inner=torch.optim.AdamW(model.parameters(), lr=6e-4),
            comm=pyccl.connect("host:48148", timeout=3600), sync_every=50,
        )
        for x, y in data:
            loss(model(x), y).backward()
            opt.step(); opt.zero_grad()
        opt.average()                       # one model of them all

    A newcomer gets the outer parameters, the momentum and the count of steps of one of the others.
    `last_sync` is of this peer's own step: `members` of its group, `contributors` that came, and
    the `distance` between them.
    """

    outer: NoLoCoState

    def __init__(
        self,
        params: Iterable[Any],
        inner: Inner,
        comm: Communicator | None = None,
        *,
        sync_every: int | None = 50,
        group: int = 2,
        alpha: float = 0.5,
        beta: float = 0.7,
        gamma: float | None = None,
        seed: int = 0,
        admit_every: int | None = 10,
        timeout: float | None = None,
    ) -> None:
        super().__init__(params, inner, comm, sync_every)
        self.outer = NoLoCoState(
            self._parameters.names, self._parameters.arrays(), alpha=alpha, beta=beta, gamma=gamma
        )
        self._how: dict[str, Any] = {
            "group": group, "seed": seed, "admit_every": admit_every, "timeout": timeout,
        }  # fmt: skip
        self._meetings = Meetings(self.outer, comm, **self._how)
        self.last_sync = self._meetings.join()
        self._write_outer()

    def average(self) -> SyncReport:
        """The outer parameters become the mean of those of all peers, and the model has them: what
        to keep of a training. All peers call it behind the same inner step; if that is not the last
        of a window, an outer step comes first. Where it does not come about, as `last_sync.applied`
        tells, each keeps its own."""
        if self.inner_steps > 0:
            self.sync()
        self.last_sync = self._meetings.average()
        self._write_outer()
        return self.last_sync

    def sync_members(self) -> bool:
        """Admits newcomers, who get the state of one of the others, and leaves out who is lost. All
        peers call it behind the same outer step. False: somebody did not come; all stays."""
        step = self.outer.step
        agreed = self._meetings.boundary()
        if self.outer.step != step:  # others are further on
            self._write_outer()
            self.inner_steps = 0
        return agreed

    def _outer_step(self) -> SyncReport:
        theta = self.outer.empty()
        self._parameters.read(self.outer.cut(self.outer.params), self.outer.cut(theta))
        step = self.outer.step
        try:
            return self._meetings.run(theta)
        finally:
            # Also where the boundary behind it has raised, or what was learned would count twice.
            if self.outer.step != step:
                self._write_outer()
                self.inner_steps = 0

    def _write_outer(self) -> None:
        self._parameters.write(self.outer.cut(self.outer.params))

    def _alone(self) -> None:
        self._meetings = Meetings(self.outer, None, **self._how)

    def _export(self) -> dict[str, Any]:
        # As tensors, which torch.load() takes without being told to trust the file.
        kept = self.outer.export()
        for key in _VECTORS:
            kept[key] = torch.from_numpy(kept[key])
        return kept

    def _import(self, state: dict[str, Any]) -> bool:
        given = {key: state[key].numpy() for key in _VECTORS if key in state}
        self.outer.import_({**state, **given})
        step = self.outer.step
        self.last_sync = self._meetings.join()
        if self.outer.step == step:
            return True
        self._write_outer()
        return False
