"""How an operation of a process group begins, and what its errors say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, cast

from pyccl.errors import (
    ClosedError,
    CoordinatorUnavailableError,
    EvictedError,
    OperationTimeout,
    PeerLostError,
    PycclError,
)
from pyccl.torch import callbacks, errors
from pyccl.torch.callbacks import Chain
from pyccl.torch.lent import Lent
from pyccl.torch.staging import Parts, Stager
from pyccl.torch.work import Work

Begin = Callable[[dict[str, Any]], Any]
"""Calls the operation of a subgroup with these arguments beside its own: timeout, tag, async_op."""


# Operations that may be under way of those that waited for copies; a communicator has a limit.
_OPEN_MAX = 64
# After them nothing of a group with fixed ranks can succeed.
_ENDS = (PeerLostError, CoordinatorUnavailableError, EvictedError, ClosedError)


class Run(Protocol):
    """What a process group is a part of."""

    @property
    def host(self) -> str | None:
        """The peer that runs the coordinator, so that they are lost together; None: no peer."""

    def lost(self, peers: tuple[str, ...]) -> tuple[int, ...]:
        """Places among these of those whose loss has ended the group, if one has."""

    def subgroup(self, ranks: list[int], name: str) -> Any: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class Calls:
    """How all operations of a process group begin: as those of a communicator or of a subgroup."""

    # The number of ranks when an operation begins is that when it ends.
    _fixed = True

    def __init__(self, run: Run, group: Any, seconds: float) -> None:
        self._run = run
        self._group = group
        self._seconds = seconds
        self._sequence = 0
        self._position = 0  # of operations that all ranks begin
        self._stager = Stager(_OPEN_MAX)
        self._stager_of_callbacks = Stager()
        self._stager_of_pairs = Stager()
        self._stagers = (self._stager, self._stager_of_callbacks, self._stager_of_pairs)
        self._closed = False
        self._named = "default"
        self._coalesced: list[Work] | None = None
        self._ended: errors.BackendError | None = None

    def _start(
        self,
        name: str,
        begin: Begin,
        outputs: list[Any],
        lent: Lent,
        options: Any = None,
        tag: int | None = None,
    ) -> Work:
        """Begins one that all ranks begin, in the order of their calls of each tag."""
        if getattr(options, "parts", None) is not None:
            options.parts.append((begin, lent))
            return cast(Work, None)  # which nobody looks at
        place, chain, stager = self._next_place()
        if tag is not None:
            place, chain = tag, None
        call = {"tag": place}
        start = _starter(stager, [(begin, lent)], call)
        return self._begin(name, start, outputs, lent, options, call, chain)

    def _start_parts(
        self,
        name: str,
        parts: list[tuple[Begin, Lent]],
        outputs: list[Any],
        lent: Lent,
        options: Any,
    ) -> Work:
        """Begins several, of a device each, that are one to the caller and to the other ranks.
        `lent` is what is left to be done behind all of them."""
        place, chain, stager = self._next_place()
        call = {"tag": place}
        start = _starter(stager, parts, call)
        return self._begin(name, start, outputs, lent, options, call, chain)

    def _start_pair(
        self, name: str, begin: Begin, outputs: list[Any], lent: Lent, tag: int
    ) -> Work:
        """Begins one between two ranks."""
        call = {"tag": tag}
        start = _starter(self._stager_of_pairs, [(begin, lent)], call)
        return self._begin(name, start, outputs, lent, None, call, None)

    def _next_place(self) -> tuple[int, Chain | None, Stager]:
        """The tag of the next operation that all ranks begin, what its callbacks belong to, and who
        begins it if it has to wait for copies."""
        around = callbacks.current()
        if around is None:
            return 0, Chain(self, self._position + 1), self._stager
        # Its place among plain calls is another one on each rank.
        if around.group is self:
            return around.tag, around, self._stager_of_callbacks
        return 0, around, self._stager

    def _begin(
        self,
        name: str,
        start: Callable[[], Any],
        outputs: list[Any],
        lent: Lent,
        options: Any,
        call: dict[str, Any],
        chain: Chain | None,
    ) -> Work:
        """Whoever waits for its end anyhow does so in the call: then nobody else has to be
        woken."""
        if self._closed:
            raise errors.ClosedError(f"{self._where(name)}: the group was destroyed")
        self._sequence += 1
        seconds = self._limit(options, None)
        translate = self._translator(name, seconds)
        waits = not getattr(options, "asyncOp", True) and self._coalesced is None
        call.update(timeout=seconds, async_op=not waits)
        try:
            begun = start()
        except PycclError as error:
            raise translate(error) from error
        if chain is not None and callbacks.current() is None:
            self._position += 1  # not of one that was refused, which the others may not have called
        work = Work(begun if call["async_op"] else None, outputs, translate, lent, chain)
        if waits:
            work.wait()
        elif self._coalesced is not None:
            self._coalesced.append(work)
        return work

    def _close(self) -> None:
        """No more operations begin."""
        self._closed = True
        for stager in self._stagers:
            stager.stop()

    def _drain(self, timeout: float | None = None) -> None:
        """Blocks until all that was called has begun."""
        for stager in self._stagers:
            stager.drain(timeout)

    def _limit(self, options: Any, timeout: timedelta | None) -> float:
        given = timeout if timeout is not None else getattr(options, "timeout", None)
        if given is None or given.total_seconds() <= 0:
            return self._seconds
        return float(given.total_seconds())

    def _where(self, name: str) -> str:
        group = "" if self._named in ("", "default", "0") else f" of group {self._named!r}"
        return f"{name}, rank {self._group.rank} of {self._group.world_size}{group}"

    def _translator(self, name: str, seconds: float) -> Callable[[PycclError], Any]:
        def translate(error: PycclError) -> errors.BackendError:
            where = self._where(name)
            if isinstance(error, OperationTimeout):
                # In the words of the other backends, which scripts look for.
                reason = f"{where}: Timed out waiting {1000 * seconds:.0f}ms: {error}"
                return errors.OperationTimeout(reason, peer=error.peer)
            made = errors.of_torch(error, where, self._lost(error), self._group.peers)
            if self._fixed and self._ended is None and isinstance(error, _ENDS):
                self._ended = made
            return made

        return translate

    def _lost(self, error: PycclError) -> tuple[int, ...]:
        """Ranks whose loss the error speaks of."""
        peers = self._group.peers
        host = self._run.host
        if isinstance(error, CoordinatorUnavailableError) and host in peers:
            return (peers.index(host),)
        if not isinstance(error, PeerLostError):
            return ()
        lost = set(self._run.lost(peers))
        if not lost and error.peer in peers:
            lost.add(peers.index(error.peer))
        return tuple(sorted(lost))


def _starter(
    stager: Stager, parts: Sequence[tuple[Begin, Lent]], call: dict[str, Any]
) -> Callable[[], Any]:
    """What begins one operation, or several as one: at once, or when its input has come."""

    def start() -> Any:
        if len(parts) == 1:
            ((begin, lent),) = parts
            if lent.copies is not None and call["async_op"]:
                return stager.begin(lent.copies, lambda: begin(call))
            stager.drain()
            if lent.copies is not None:
                lent.copies.await_fetched()
            return begin(call)
        call["async_op"] = True
        return Parts(
            [
                (stager.begin(lent.copies, partial(begin, call)), lent.finish)
                for begin, lent in parts
            ]
        )

    return start
