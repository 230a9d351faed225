"""A coordinator inside this process, for tests, notebooks and programs that bring their own."""

from __future__ import annotations

import os
from types import TracebackType

from pyccl import _core, _events
from pyccl.errors import InvalidArgumentError


class Coordinator:
    """Runs on a thread of its own from here on, until stop() or the end of the block.

    bind: "host:port"; port 0 picks one, which `address` then tells.
    state: the file that lets a coordinator started later on the same address go on with the run.
        None: a restart begins a new run, and the members of this one go on without.
    heartbeat_limit: seconds of silence after which a peer counts as dead; by default 4. The peers
        are told.
    recovery_limit: seconds that a restarted coordinator waits for the members of its last view.

    Raises AddressInUseError, TransportError (state file), InvalidArgumentError.
    """

    def __init__(
        self,
        bind: str = "127.0.0.1:48148",
        *,
        state: str | os.PathLike[str] | None = None,
        heartbeat_limit: float | None = None,
        recovery_limit: float | None = None,
    ) -> None:
        limits = {}
        for name, value in (
            ("heartbeat_limit", heartbeat_limit), ("recovery_limit", recovery_limit)
        ):  # fmt: skip
            if value is not None:
                if not value > 0:
                    raise InvalidArgumentError(f"{name} is {value!r}, but must be above 0 seconds")
                limits[name] = float(value)
        if not isinstance(bind, str) or not bind:
            raise InvalidArgumentError(f"bind is {bind!r}, but must be 'host:port'")
        self._log = _events.Log("coordinator")
        self._core = _core.start_coordinator(
            bind=bind,
            state=None if state is None else os.fspath(state),
            limits=limits,
            log=self._log.lines,
        )
        _events.close_at_exit(self)

    @property
    def address(self) -> str:
        """Where peers reach it: "host:port"."""
        return self._core.address()

    @property
    def incarnation(self) -> int:
        """Rises with each start on the same state file."""
        return self._core.incarnation()

    @property
    def members(self) -> int:
        """How many peers are in the present view, of all groups together."""
        return self._core.members()

    def stop(self) -> None:
        """Ends at once; the members go on without it. May be called twice."""
        self._core.stop()
        self._log.forward()

    close = stop

    def __enter__(self) -> Coordinator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<pyccl.Coordinator at {self.address}, incarnation {self.incarnation}>"
