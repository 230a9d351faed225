"""The communicator: a peer's place in a group whose membership changes."""

from __future__ import annotations

import functools
import math
import numbers
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, NamedTuple, overload

from pyccl import _core, _events
from pyccl.arrays import ArrayLike, gather
from pyccl.errors import ClosedError, InvalidArgumentError, OperationTimeout, PycclError
from pyccl.work import Epoch, OperationInfo, Work

ReduceOp = Literal["sum", "avg", "prod", "min", "max", "band", "bor", "bxor"]
Algorithm = Literal["auto", "ring", "direct", "one_shot"]
OnLoss = Literal["retry", "raise"]
Role = Literal["worker", "mirror"]

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
    timeout: float = 60.0,
    operation_timeout: float = 300.0,
    world_size_min: int = 1,
    heartbeat_limit: float | None = None,
) -> Communicator:
    """Joins the run of the coordinator at `address` ("host:port") and blocks until admitted.

    The first peer of a run is admitted at once, later ones when the members call `update()`.

    group: peers of one name reduce together.
    connections: per peer, 1 to 64; one operation uses them all.
    role: a "mirror" takes part without contributing.
    listen: where other peers may reach this one, "host:port"; by default a port of its own choice.
    advertise: what to tell them instead, where that differs ("host:port").
    timeout: seconds until admitted.
    operation_timeout: seconds that an operation may take whose call names no timeout.
    world_size_min: goes on updating until the group has so many members, for groups that start
        together; all of them must then ask for the same number.
    heartbeat_limit: seconds without a word after which the coordinator is dialled again, 4 by
        default; the coordinator's own limit counts if it is longer.

    Raises CoordinatorUnavailableError, NotAdmittedError (also where members exist, but admit nobody
    in time), ProtocolError (another version of pyccl), OperationTimeout (`world_size_min` is not
    reached) or InvalidArgumentError.
    """
    deadline = time.monotonic() + _seconds(timeout, "timeout")
    # All of it before anybody hears of this peer.
    operation_seconds = _seconds(operation_timeout, "operation_timeout")
    least = _integer(world_size_min, "world_size_min", 1, 1 << 20)
    core_log = _events.Log("communicator")
    limits = {} if heartbeat_limit is None else {
        "heartbeat_limit": _seconds(heartbeat_limit, "heartbeat_limit")
    }  # fmt: skip
    core = _core.open(
        coordinator=_text(address, "address"),
        group=_text(group, "group"),
        role=_code(_core.roles, role, "role"),
        connections=_integer(connections, "connections", 1, 64),
        listen=None if listen is None else _text(listen, "listen"),
        advertise=None if advertise is None else _text(advertise, "advertise"),
        timeout=_seconds(timeout, "timeout"),
        limits=limits,
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


class Communicator:
    """Made by `connect()`. Any thread may use it; threads that use it at the same time give their
    operations different tags.

    As a context manager it leaves in good order at the end of the block, and closes at once, as if
    it had died, when the block is left by an exception.
    """

    def __init__(
        self, core: _core.Communicator, address: str, group: str, timeout: float, log: _events.Log
    ) -> None:
        self._core = core
        self._coordinator = address
        self._group = group
        self._timeout = timeout
        self._log = log
        self._pending = False
        self._closed = False
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
    def peer(self) -> str:
        """The id of this peer: one life of one process."""
        return self._core.peer()

    @property
    def peers_pending(self) -> bool:
        """Joiners waited when the last operation was committed whose wait has returned here.

        The same on all members after the same operation, so that all come to the same conclusion:
        `if comm.peers_pending: comm.update()`.
        """
        return self._pending

    @property
    def closed(self) -> bool:
        """True after leave() or close(), and once this peer was evicted."""
        return self._closed or self._core.view()[3] is not None

    def update(self, timeout: float | None = None) -> View:
        """The boundary between two views: admits joiners. Returns the view that follows.

        All members call it, when they have no operation under way. Raises OperationTimeout if
        somebody does not.
        """
        self._finish(self._core.update, self._timeout_of(timeout))
        self._pending = False
        return self.view

    @overload
    def all_reduce(
        self, x: ArrayLike, *, op: ReduceOp = ..., weight: float = ..., out: ArrayLike | None = ...,
        algorithm: Algorithm | None = ..., tag: int = ..., on_loss: OnLoss = ...,
        timeout: float | None = ..., async_op: Literal[False] = ...,
    ) -> OperationInfo: ...  # fmt: skip

    @overload
    def all_reduce(
        self, x: ArrayLike, *, op: ReduceOp = ..., weight: float = ..., out: ArrayLike | None = ...,
        algorithm: Algorithm | None = ..., tag: int = ..., on_loss: OnLoss = ...,
        timeout: float | None = ..., async_op: Literal[True],
    ) -> Work: ...  # fmt: skip

    def all_reduce(
        self,
        x: ArrayLike,
        *,
        op: ReduceOp = "sum",
        weight: float = 1.0,
        out: ArrayLike | None = None,
        algorithm: Algorithm | None = None,
        tag: int = 0,
        on_loss: OnLoss = "retry",
        timeout: float | None = None,
        async_op: bool = False,
    ) -> OperationInfo | Work:
        """Reduces arrays element by element over all members; all hold the same bits afterwards.

        x: an array of any shape, or a list of arrays, which are then one operation with one
            outcome. C-contiguous, in the CPU's memory, of f32 f64 f16 bf16 i8 i16 i32 i64 u8 u16
            u32 or u64: numpy, anything with the buffer protocol, DLPack. The same types and
            sizes in the same order on all members.
        op: sum, avg, prod, min, max, band, bor, bxor. avg for floating point, the bit operations
            for integers only.
        weight: >= 0, floating point, for sum and avg: what this peer's values are multiplied by.
            avg divides by the sum of the weights. 0 takes part without contributing; where nobody
            contributes, InvalidArgumentError says so on all members.
        out: where the result goes: an array, or a list of arrays, like `x`. By default the result
            replaces `x`.
        algorithm: "ring", "direct" or "one_shot"; by default what suits size and group.
        tag: operations of one tag are matched by their order; different tags are independent.
        on_loss: what the survivors of a lost peer do: "retry" begins again among them, "raise"
            raises PeerLostError on all of them.
        timeout: seconds; by default the communicator's `operation_timeout`.
        async_op: returns a Work at once. The arrays belong to the operation until it has ended.

        After an error `x` holds what it held before, and `out` is undefined. Ctrl-C cancels a
        blocking call. Raises InvalidArgumentError, MismatchError, PeerLostError, OperationTimeout
        (names the ranks that had not arrived), EvictedError, ClosedError. Where one of these needs
        the coordinator's decision and it stays away, the outcome is unknown: the communicator ends
        with CoordinatorUnavailableError.
        """
        try:
            settings = _settings(op, weight, tag, on_loss, algorithm)
        except TypeError as error:  # can't be hashed
            raise InvalidArgumentError(f"an option of all_reduce is no plain value: {error}") from (
                error
            )
        seconds = self._timeout if timeout is None else _seconds(timeout, "timeout")
        arrays = gather(x, out)
        if async_op:
            return Work(self, self._call(self._core.all_reduce, arrays, settings, seconds, False))
        return self._finish(self._core.all_reduce, arrays, settings, seconds, True)

    def barrier(self, *, tag: int = 0, timeout: float | None = None) -> OperationInfo:
        """Returns when all members have called it. Matched and retried like an all-reduce."""
        tag = _integer(tag, "tag", 0, 0xFFFFFFFF)
        return self._finish(self._core.barrier, tag, self._timeout_of(timeout))

    def leave(self, timeout: float | None = None) -> None:
        """Takes leave in good order and closes: the others go on at once, without this peer.

        Waits at most `timeout` seconds (5 by default) for the coordinator's farewell, and goes all
        the same. Operations that are still open end with ClosedError. May be called twice.
        """
        seconds = _LEAVE_SECONDS if timeout is None else _seconds(timeout, "timeout")
        if self._closed:
            return
        try:
            self._finish(self._core.leave, seconds)
        except PycclError as error:
            # Evicted, or the coordinator is away: out is out.
            _events.logger.info("left without a farewell: %s", error)
        finally:
            self.close()

    def close(self) -> None:
        """Ends at once and without a word; the others see a death. Open operations end with
        ClosedError. May be called twice."""
        if not self._closed:
            self._closed = True
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
        if self._closed:
            what = "closed"
        elif end is not None:
            what = f"ended: {end[1]}"
        return f"<pyccl.Communicator {what}, group {self._group!r} at {self._coordinator}>"

    def _call(self, function: Callable[..., _core.Work], *arguments: object) -> _core.Work:
        if self._closed:
            raise ClosedError("the communicator was closed; connect() gives a new one")
        return function(*arguments)

    def _finish(self, function: Callable[..., _core.Work], *arguments: object) -> OperationInfo:
        # The core waits, and gives the call up before Ctrl-C comes out of it: between two lines of
        # Python an exception could leave a call posted that nobody knows of.
        return Work(self, self._call(function, *arguments)).result()

    def _timeout_of(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else _seconds(timeout, "timeout")

    def _gather(self, world_size_min: int, deadline: float) -> None:
        # All members see the same views and the same hints, and so come here equally often. The
        # pause between two looks grows while nobody comes.
        pause = 0.001
        while self.world_size < world_size_min:
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


@functools.lru_cache(maxsize=1024, typed=True)
def _settings(
    op: str, weight: float, tag: int, on_loss: str, algorithm: str | None
) -> _core.ReduceSettings:
    if not (isinstance(weight, numbers.Real) and 0 <= weight < math.inf):
        raise InvalidArgumentError(f"weight is {weight!r}, but must be a finite number >= 0")
    return _core.ReduceSettings(
        op=_code(_core.reduce_ops, op, "op"),
        weight=float(weight),
        tag=_integer(tag, "tag", 0, 0xFFFFFFFF),
        on_loss=_code(_core.on_loss, on_loss, "on_loss"),
        algorithm=_code(_core.algorithms, algorithm or "auto", "algorithm"),
    )


def _code(codes: dict[str, int], name: object, what: str) -> int:
    if not isinstance(name, str) or name not in codes:
        raise InvalidArgumentError(f"{what} is {name!r}, but must be one of {', '.join(codes)}")
    return codes[name]


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidArgumentError(f"{what} is {value!r}, but must be a text")
    return value


def _integer(value: object, what: str, low: int, high: int) -> int:
    if not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise InvalidArgumentError(f"{what} is {value!r}, but must be from {low} to {high}")
    return int(value)


def _seconds(value: object, what: str) -> float:
    if not isinstance(value, numbers.Real) or not float(value) > 0:
        raise InvalidArgumentError(f"{what} is {value!r}, but must be seconds above 0")
    return float(value)
