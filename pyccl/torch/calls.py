"""How an operation of a process group begins, and what its errors say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Protocol

from pyccl.errors import (
    ClosedError,
    CoordinatorUnavailableError,
    EvictedError,
    OperationTimeout,
    PeerLostError,
    PycclError,
)
from pyccl.torch import errors
from pyccl.torch.lent import Lent
from pyccl.torch.work import Work

Begin = Callable[[float, bool], Any]
"""Calls the operation of a subgroup with so many seconds; True: it returns a pyccl.Work at once."""


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
        timeout: timedelta | None = None,
    ) -> Work:
        """Whoever waits for its end anyhow does so in the call: then nobody else has to be
        woken."""
        if self._closed:
            raise errors.ClosedError(f"{self._where(name)}: the group was destroyed")
        self._sequence += 1
        seconds = self._limit(options, timeout)
        translate = self._translator(name, seconds)
        waits = not getattr(options, "asyncOp", True) and self._coalesced is None
        try:
            begun = begin(seconds, not waits)
        except PycclError as error:
            raise translate(error) from error
        work = Work(None if waits else begun, outputs, translate, lent.finish)
        if waits:
            work.wait()
        elif self._coalesced is not None:
            self._coalesced.append(work)
        return work

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
