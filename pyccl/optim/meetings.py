"""Outer steps of NoLoCo among the members of a communicator: who meets whom, what they swap, and
how newcomers get in.

A meeting is one swap for each other member of a small group (pyccl.optim.gossip): who is a step
ahead waits for its partner and for nobody else, and who is lost leaves its partner alone at once.

Swaps of two peers are matched by their order, so each peer calls each swap that the numbers of
steps ask for, once. Those of steps that it has skipped it calls at the next boundary, where its
partner's have long failed. (A tag for each step would do without, but tags are few.)

Who the members are is agreed upon at boundaries, in one gathering of a few numbers that all of them
take part in, and holds until the next one. Between two boundaries nobody looks at the view to say
who meets whom: peers hear of a loss at different times, and two that reckon with different members
would wait for partners that have gone elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pyccl.communicator import Communicator
from pyccl.errors import (
    CancelledError,
    CoordinatorUnavailableError,
    InvalidArgumentError,
    PeerLostError,
)
from pyccl.optim.gossip import NoLoCoState, group_of, splitmix64
from pyccl.optim.layout import F32
from pyccl.optim.report import SyncReport
from pyccl.optim.rounds import ABORTS, communicator
from pyccl.options import integer
from pyccl.options import seconds as seconds_of
from pyccl.subgroup import Subgroup
from pyccl.work import OperationInfo, Work

logger = logging.getLogger("pyccl.optim")

# Out of the way of the caller's tags.
_BOUNDARY_TAG = 0xFFFFFFFE
_MEETING_TAG = 0xFFFFFFFD
_SEED_MAX = (1 << 64) - 1

U64 = npt.NDArray[np.uint64]


class _Member(NamedTuple):
    """What a peer says of itself at a boundary."""

    peer: int
    ready: bool
    """It has trained, or has got its state from one that has."""
    step: int
    called: int
    """Its swaps are those of the steps below."""
    options: int


class Meetings:
    """The outer steps of one peer.

    comm: None: alone; each step is that of a group of one.
    group: members of a group, at least 2. seed: who meets whom follows from it. Both are the same
        on all peers.
    admit_every: outer steps between two boundaries; None: they are the caller's to name, by
        boundary().
    timeout: seconds to wait for a partner; None: those of the communicator, which also hold for
        each operation of a boundary, so that who is late by more than this meets the others there.
    """

    def __init__(
        self,
        state: NoLoCoState,
        comm: Communicator | None,
        *,
        group: int = 2,
        seed: int = 0,
        admit_every: int | None = 10,
        timeout: float | None = None,
    ) -> None:
        self._state = state
        self._comm = communicator(comm)
        self._group = integer(group, "group", 2, 1 << 16)
        self._seed = integer(seed, "seed", 0, _SEED_MAX)
        self._admit_every = (
            None if admit_every is None else integer(admit_every, "admit_every", 1, 1 << 32)
        )
        self._timeout = None if timeout is None else seconds_of(timeout, "timeout")
        self._ready = False
        self._members: tuple[int, ...] = ()
        self._called = 0

    @property
    def members(self) -> tuple[int, ...]:
        """Ids of those who meet, as of the last boundary, ascending."""
        return self._members

    def join(self) -> SyncReport:
        """Before the first window, and wherever peers may be at different steps: all call it.

        Each gives a newcomer its own phi, momentum and step, the newcomers being dealt out among
        them by chance; at the start of a run all get those of one of them. Raises
        InvalidArgumentError if this peer was made with other parameters or options than the others,
        and the errors of the communicator.
        """
        report = SyncReport(fresh=True, step=self._state.step)
        if self._comm is not None:
            self._gather(self._comm)
            report.step, report.members = self._state.step, len(self._members)
        return report

    def boundary(self) -> bool:
        """Admits those who wait, and gives them a state. All peers call it at the same outer step.
        False: somebody has not come, or the coordinator is away, and the members are those of
        before."""
        if self._comm is None:
            return True
        try:
            self._comm.update()
            self._gather(self._comm)
        except (*ABORTS, CoordinatorUnavailableError) as error:
            if self._comm.closed:
                raise
            logger.warning("outer step %d: no boundary: %s", self._state.step, error)
            return False
        return True

    def run(self, theta: F32) -> SyncReport:
        """One outer step with what this peer's inner steps have come to, and the boundary that is
        due behind it.

        theta: fp32, like `params` of the state. If there is a NaN or an infinity in it, this peer
            has learned nothing: it becomes phi.

        Raises the errors of a communicator that is at its end.
        """
        began = time.monotonic()
        state = self._state
        report = SyncReport(fresh=True, step=state.step)
        if not np.isfinite(theta).all():
            theta[...] = state.params
            report.reason = "this peer's parameters are not finite"
        own = (theta, state.params) if state.needs_phis else (theta,)
        found = {self._id: own, **self._meet(own, report)}
        of_all = [found[peer] for peer in sorted(found)]
        thetas = [one[0] for one in of_all]
        report.distance = state.distance(thetas)
        try:
            state.apply(thetas, [one[1] for one in of_all] if state.needs_phis else None)
        except InvalidArgumentError as error:  # what would come of it is not finite
            report.reason = str(error)
        else:
            report.applied, report.step = True, state.step
        report.contributors = len(thetas)
        report.weight_sum = float(len(thetas))
        if report.applied and self._admit_every and state.step % self._admit_every == 0:
            if not self.boundary():
                report.reason = report.reason or "at the boundary behind it not all came together"
            report.step = state.step  # others may be further on
        report.seconds = time.monotonic() - began
        return report

    def average(self) -> SyncReport:
        """phi becomes the mean over all peers, as at the end of a training; all call it at the same
        place. Momentum and step stay. Where it does not come about, so does phi."""
        report = SyncReport(fresh=True, step=self._state.step, contributors=1, members=1)
        if self._comm is None:
            report.applied, report.weight_sum = True, 1.0
            return report
        mean = self._state.params.copy()
        work = self._comm.all_reduce(mean, op="avg", tag=_BOUNDARY_TAG, async_op=True)
        try:
            info = work.wait()
        except ABORTS as error:
            report.reason = str(error)
            return report
        self._state.params[...] = mean
        report.applied = True
        report.contributors, report.members = info.world_size, info.members
        report.weight_sum, report.attempts, report.seconds = (
            info.weight_sum, info.attempts, info.seconds,
        )  # fmt: skip
        _count(report, info)
        return report

    @property
    def _id(self) -> int:
        return 0 if self._comm is None else int(self._comm.peer, 16)

    # ---- a meeting
    def _meet(self, own: tuple[F32, ...], report: SyncReport) -> dict[int, tuple[F32, ...]]:
        """What the others of the group have come to, by id; those who are lost are not in it."""
        step, me = self._state.step, self._id
        report.members = report.attempts = 1
        # One that could not be applied is not met for again.
        if self._comm is None or me not in self._members or step < self._called:
            return {}
        group = group_of(me, self._members, self._seed, step, self._group)
        report.members, self._called = len(group), step + 1
        theirs = {other: tuple(map(np.empty_like, own)) for other in group if other != me}
        under_way: dict[int, Work[OperationInfo]] = {}
        for other, into in theirs.items():
            try:
                under_way[other] = self._swap(self._comm, other, own, into)
            except ABORTS as error:
                report.reason = str(error)
        found = {}
        for other, work in under_way.items():
            try:
                _count(report, work.wait())
                found[other] = theirs[other]
            except ABORTS as error:
                report.reason = str(error)
        return found

    def _swap(
        self, comm: Communicator, other: int, own: Sequence[Any], into: Sequence[Any]
    ) -> Work[OperationInfo]:
        pair = self._pair(comm, other)
        return pair.exchange(
            list(own), list(into), 1 - pair.rank, _MEETING_TAG, timeout=self._timeout, async_op=True
        )

    def _catch_up(self, comm: Communicator, called: int) -> None:
        """Calls the swaps of steps that this peer has skipped, and others have not."""
        if self._id in self._members:
            nothing: U64 = np.zeros(1, np.uint64)
            for step in range(self._called, called):
                group = group_of(self._id, self._members, self._seed, step, self._group)
                for other in set(group) - {self._id}:
                    with contextlib.suppress(*ABORTS):
                        self._swap(comm, other, [nothing], [nothing.copy()]).wait()
        self._called = self._state.step

    @staticmethod
    def _pair(comm: Communicator, other: int) -> Subgroup:
        """This peer and another one, in the order of their ranks. Raises PeerLostError."""
        wanted = {comm.peer, f"{other:016x}"}
        while True:
            view = comm.view
            if not wanted <= set(view.peers):
                raise PeerLostError(f"peer {other:016x} is not in view {view.epoch} any more")
            # The view may change here, and with it what the ranks mean.
            with contextlib.suppress(InvalidArgumentError):
                pair = comm.subgroup([i for i, peer in enumerate(view.peers) if peer in wanted])
                if set(pair.peers) == wanted:
                    return pair

    # ---- a boundary
    def _gather(self, comm: Communicator) -> None:
        """Says who is there until all have a state. Whoever has one gives it to one other at a
        time, so the first state of a run reaches N peers in log2(N) rounds."""
        while True:
            told = self._tell(comm)
            ready = [one for one in told if one.ready]
            step = max((one.step for one in ready), default=0)
            # At the start of a run nobody is, and the state is that of the lowest rank.
            have = [one for one in ready if one.step == step] or told[:1]
            mine = next(one for one in told if one.peer == self._id)
            alike = [one for one in told if one.options == mine.options]
            # A newcomer is in the wrong by itself; at the start of a run who is would be a guess.
            if have[0] not in alike or (not ready and len(alike) < len(told)):
                other = next(one for one in told if one.options != mine.options)
                raise InvalidArgumentError(
                    f"this peer has other parameters or options than {other.peer:016x}: names, "
                    "shapes, alpha, beta, gamma, group, seed and admit_every are the same on all"
                )
            lack = sorted(one.peer for one in alike if one not in have)
            self._ready = self._ready or mine in have
            if not lack:
                self._catch_up(comm, max(one.called for one in told))
                self._members = tuple(sorted(one.peer for one in alike))
                return
            key = splitmix64(splitmix64(self._seed) ^ step)
            givers = sorted((one.peer for one in have), key=lambda peer: splitmix64(key ^ peer))
            for giver, taker in zip(givers, lack, strict=False):
                if self._id in (giver, taker):
                    self._hand_over(comm, giver, taker)

    def _tell(self, comm: Communicator) -> list[_Member]:
        """What all say, by rank."""
        row: U64 = np.array(
            [self._id, self._ready, self._state.step, self._called, self._options()],
            dtype=np.uint64,
        )
        rows = comm.all_gather(row, tag=_BOUNDARY_TAG).tolist()
        return [_Member(peer, bool(ready), *others) for peer, ready, *others in rows]

    def _hand_over(self, comm: Communicator, giver: int, taker: int) -> None:
        """phi, momentum and step. Where one of them is lost, the next round finds who lacks them; a
        timeout is one of the whole gathering, or those two would go on for ever."""
        params, momentum = self._state.params, self._state.momentum
        step: U64 = np.array([self._state.step], np.uint64)
        gives = self._id == giver
        try:
            pair = self._pair(comm, taker if gives else giver)
            if gives:
                pair.send([params, momentum, step], 1 - pair.rank, _BOUNDARY_TAG)
                return
            params, momentum = np.empty_like(params), np.empty_like(momentum)
            pair.recv([params, momentum, step], 1 - pair.rank, _BOUNDARY_TAG)
        except (CancelledError, PeerLostError) as error:
            logger.info("no state from %016x to %016x: %s", giver, taker, error)
        else:
            self._state.take(params, momentum, int(step[0]))
            self._ready = True

    def _options(self) -> int:
        state = self._state
        arrays, numbers = (state.names, state.shapes), (state.alpha, state.beta, state.gamma)
        text = repr((arrays, numbers, self._group, self._seed, self._admit_every))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _count(report: SyncReport, info: OperationInfo) -> None:
    report.attempts = max(report.attempts, info.attempts)
    report.bytes_sent += info.bytes_sent
    report.bytes_received += info.bytes_received
