"""The communicator: a peer's place in a group whose membership changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, NamedTuple

from pyccl import _core, _events
from pyccl.errors import (
    ClosedError,
    InvalidTypeError,
    OperationTimeout,
    PycclError,
)
from pyccl.operations import Shared
from pyccl.options import code, integer, seconds, text
from pyccl.shared_state import Progress, SharedState, Strategy, SyncInfo
from pyccl.subgroup import Collectives
from pyccl.work import Epoch, OperationInfo, Work

Role = Literal["worker", "mirror"]
Transport = Literal["auto", "tcp"]

_LEAVE_SECONDS = 5.0
# Out of the way of the caller's tags.
_GATHER_TAG = 0xFFFFFFFF


class View(NamedTuple):
    """The agreed membership of a group."""

    epoch: Epoch
    rank: int
    world_size: int
    peers: tuple[str, ...]
    """Ids (16 hex digits) in rank order."""


def connect(
    address: str,
    *,
    group: str = "default",
    connections: int = 4,
    role: Role = "worker",
    listen: str | None = None,
    advertise: str | None = None,
    transport: Transport = "auto",
    spin_us: int = 0,
    timeout: float = 60.0,
    operation_timeout: float = 300.0,
    world_size_min: int = 1,
    heartbeat_limit: float | None = None,
    coordinator_limit: float | None = None,
) -> Communicator:
    """Joins the run of the coordinator at `address` ("host:port") and blocks until admitted.

    The first peer of a run is admitted at once, later ones when the members call `update()`.

    group: peers of one name reduce together.
    connections: per peer, 1 to 64; one operation uses them all.
    role: a "mirror" takes part without contributing.
    listen: where other peers may reach this one, "host:port"; by default a port of its own choice.
    advertise: what to tell them instead, where that differs ("host:port").
    transport: "auto" takes shared memory between peers that have it in common, else TCP; "tcp"
        takes TCP everywhere.
    spin_us: microseconds, up to 1000000, for which a call that waits looks for news without
        sleeping: less latency for a busy processor. A blocking call does so for 100 in any case.
    timeout: seconds until admitted.
    operation_timeout: seconds that an operation may take whose call names no timeout.
    world_size_min: goes on updating until the group has so many members, for groups that start
        together; all of them must then ask for the same number.
    heartbeat_limit: seconds without a word after which the coordinator is dialled again, 4 by
        default; the coordinator's own limit counts if it is longer.
    coordinator_limit: seconds for which the coordinator may be away, before the communicator ends
        with CoordinatorUnavailableError; by default for ever, for it may be restarted.

    Raises CoordinatorUnavailableError, NotAdmittedError (also where members exist, but admit nobody
    in time), ProtocolError (another version of pyccl), OperationTimeout (`world_size_min` is not
    reached) or InvalidArgumentError.
    """
    deadline = time.monotonic() + seconds(timeout, "timeout")
    # All of it before anybody hears of this peer.
    operation_seconds = seconds(operation_timeout, "operation_timeout")
    least = integer(world_size_min, "world_size_min", 1, 1 << 20)
    core_log = _events.Log("communicator")
    limits = _limits(heartbeat_limit=heartbeat_limit, coordinator_limit=coordinator_limit)
    core = _core.open(
        coordinator=text(address, "address"),
        group=text(group, "group"),
        role=code(_core.roles, role, "role"),
        connections=integer(connections, "connections", 1, 64),
        listen=None if listen is None else text(listen, "listen"),
        advertise=None if advertise is None else text(advertise, "advertise"),
        timeout=seconds(timeout, "timeout"),
        limits=limits,
        transport=code(_core.transports, transport, "transport"),
        spin_us=integer(spin_us, "spin_us", 0, 1_000_000),
        log=core_log.lines,
    )
    communicator = Communicator(core, address, group, operation_seconds, core_log)
    try:
        communicator._finish(core.admission)
        communicator._gather(least, deadline)
    except BaseException:
        communicator.close()
        raise
    return communicator


def _limits(**given: float | None) -> dict[str, float]:
    return {name: seconds(one, name) for name, one in given.items() if one is not None}


class Communicator(Collectives):
    """Made by `connect()`. Any thread may use it; threads that use it at the same time give their
    operations different tags.

    As a context manager it leaves in good order at the end of the block, and closes at once, as if
    it had died, when the block is left by an exception.
    """

    def __init__(
        self, core: _core.Communicator, address: str, group: str, timeout: float, log: _events.Log
    ) -> None:
        super().__init__(Shared(core, timeout), None)
        self._core = core
        self._coordinator = address
        self._group = group
        self._log = log
        _events.close_at_exit(self)

    @property
    def rank(self) -> int:
        """This peer's place in the present view of its group, from 0."""
        return self._core.view()[1]

    @property
    def world_size(self) -> int:
        """Members of the group in the present view."""
        return len(self._core.view()[2])

    @property
    def epoch(self) -> Epoch:
        """The number of the present view."""
        return Epoch(*self._core.view()[0])

    @property
    def peers(self) -> tuple[str, ...]:
        """The ids of the members of the group in rank order."""
        return self._core.view()[2]

    @property
    def view(self) -> View:
        """Epoch, rank and peers as they belong together."""
        epoch, rank, peers, _ = self._core.view()
        return View(Epoch(*epoch), rank, len(peers), peers)

    @property
    def groups(self) -> int:
        """Groups of the whole run in the present view. update() and sync() are of all of them."""
        return self._core.groups()

    @property
    def peer(self) -> str:
        """The id of this peer: one life of one process."""
        return self._core.peer()

    @property
    def peers_pending(self) -> bool:
        """Joiners waited when the last operation was committed whose wait has returned here.

        The same on all members after the same operation, so that all come to the same conclusion:
        `if comm.peers_pending: comm.update()`. Operations of subgroups and between two members
        leave it alone.
        """
        return self._shared.pending

    @property
    def closed(self) -> bool:
        """True after leave() or close(), and once this peer was evicted."""
        return self._shared.closed or self._core.view()[3] is not None

    def update(self, timeout: float | None = None) -> View:
        """The boundary between two views: admits joiners. Returns the view that follows.

        All members call it, when they have no operation under way. Raises OperationTimeout if
        somebody does not.
        """
        self._finish(self._core.update, self._timeout_of(timeout))
        self._shared.pending = False
        return self.view

    def sync(
        self,
        state: SharedState,
        strategy: Strategy = "popular",
        *,
        expect_next: bool = False,
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> SyncInfo:
        """Brings the states of all members to one, bit for bit.

        All members call it, in the same place of their program, with states of the same names,
        types and shapes. It begins with update(), unless nothing has been called since the last
        one or since this peer was admitted; so who is admitted by it gets the state from it, and a
        training loop is: sync, work, all_reduce, apply.

        The state of the highest revision wins that a member may send; among unlike states of that
        revision the one that is sent only, else the one that most members have, else that of the
        lowest rank. Who has other bits fetches the blocks that differ, from all who have them. The
        tensors must not be written meanwhile.

        strategy: "popular"; "send_only": never overwritten, it is an error if another state
            would win; "receive_only": never elected, and sends nothing.
        expect_next: the winner must be one revision on from this state's last sync.
        timeout: seconds for each of its operations. Those that are under way at once move no more
            than 32 MiB to a member, so large states need no larger one.
        progress: called now and then with bytes moved between all members and bytes to be moved.

        Ctrl-C, or an error that progress raises, ends the sync for all, also for members that call
        it later: they get CancelledError, and all call it again. While the coordinator is away that
        waits for it, like an operation's decision.

        A peer that is lost meanwhile does not matter, as long as others have what it had. If the
        sync fails, it fails for all; the state then has its old bits, or all of the new ones (its
        revision tells), or names in `state.void` what is neither. Old bits are kept where no more
        than 128 MiB were to be fetched.

        Raises StateSyncError (schemas differ, nobody may send, send_only states in conflict, no
        holder of a block is left, an unexpected revision), OperationTimeout, CancelledError and the
        errors of update().
        """
        if not isinstance(state, SharedState):
            raise InvalidTypeError(f"state is of type {type(state).__name__}, not a SharedState")
        if progress is not None and not callable(progress):
            raise InvalidTypeError(f"progress is {progress!r}, but must be a function or None")
        if self._shared.closed:
            raise ClosedError("the communicator was closed; connect() gives a new one")
        how = code(_core.strategies, strategy, "strategy"), bool(expect_next)
        limit = self._timeout_of(timeout)
        info = state._sync(lambda: self._core.sync(state._core, *how, limit, progress))
        self._shared.pending = info.peers_pending
        return info

    def leave(self, timeout: float | None = None) -> None:
        """Takes leave in good order and closes: the others go on at once, without this peer.

        Waits at most `timeout` seconds (5 by default) for the coordinator's farewell, and goes all
        the same. Operations that are still open end with ClosedError. May be called twice.
        """
        limit = _LEAVE_SECONDS if timeout is None else seconds(timeout, "timeout")
        if self._shared.closed:
            return
        try:
            self._finish(self._core.leave, limit)
        except PycclError as error:
            # Evicted, or the coordinator is away: out is out.
            _events.logger.info("left without a farewell: %s", error)
        finally:
            self.close()

    def close(self) -> None:
        """Ends at once and without a word; the others see a death. Open operations end with
        ClosedError. May be called twice."""
        if not self._shared.closed:
            self._shared.closed = True
            self._core.close()
            self._log.forward()

    def __enter__(self) -> Communicator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.leave()
        else:
            self.close()

    def __repr__(self) -> str:
        epoch, rank, peers, end = self._core.view()
        what = f"rank {rank} of {len(peers)}, epoch {Epoch(*epoch)}"
        if self._shared.closed:
            what = "closed"
        elif end is not None:
            what = f"ended: {end[1]}"
        return f"<pyccl.Communicator {what}, group {self._group!r} at {self._coordinator}>"

    def _finish(self, function: Callable[..., _core.Work], *arguments: object) -> OperationInfo:
        # The core waits, as in Operations._run().
        if self._shared.closed:
            raise ClosedError("the communicator was closed; connect() gives a new one")
        work: Work = Work(function(*arguments), self._shared)
        return work.result()

    def _timeout_of(self, timeout: float | None) -> float:
        return self._shared.timeout if timeout is None else seconds(timeout, "timeout")

    def _gather(self, world_size_min: int, deadline: float) -> None:
        # All members see the same views and the same hints, and so come here equally often. The
        # pause between two looks grows while nobody comes. Some may be gone again before this
        # thread looks: their view was there, and operations of theirs may wait for this member.
        pause = 0.001
        while self._core.members_most() < world_size_min:
            left = deadline - time.monotonic()
            if left <= 0:
                raise OperationTimeout(
                    f"the group has {self.world_size} of {world_size_min} members in time"
                )
            if self.barrier(tag=_GATHER_TAG, timeout=left).peers_pending:
                self.update(left)
                pause = 0.001
            else:
                time.sleep(min(pause, left))
                pause = min(2 * pause, 0.05)
