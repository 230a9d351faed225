"""Whether all peers hold the same bits, found out while they train."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyccl.communicator import Communicator
from pyccl.errors import CancelledError, OperationTimeout, PeerLostError
from pyccl.optim.outer import OuterState
from pyccl.work import Work

# Out of the way of the caller's tags.
_TAG = 0xFFFFFFFC


class Comparison:
    """A gathering of digests that nobody waits for until its result is asked for. All peers begin
    and end it at the same places."""

    def __init__(self, state: OuterState, comm: Communicator, timeout: float | None) -> None:
        self._state = state
        self._comm = comm
        self._timeout = timeout
        self._work: Work[Any] | None = None
        self._failed = False

    def begin(self) -> str:
        """With what the state is now; its digest."""
        digest = self._state.hash()
        row = np.array([int(digest[:16], 16), int(digest[16:], 16), self._state.step], np.uint64)
        try:
            self._work = self._comm.all_gather(row, tag=_TAG, timeout=self._timeout, async_op=True)
        except (CancelledError, OperationTimeout, PeerLostError):
            self._failed = True
        return digest

    def differs(self) -> bool:
        """Waits for the one that has begun. True: some peer held other bits, or it has not come
        about; the same on all of them. False also where none has begun."""
        work, self._work = self._work, None
        failed, self._failed = self._failed, False
        if work is None:
            return failed
        try:
            rows = work.wait()
        except (CancelledError, OperationTimeout, PeerLostError):
            return True
        return bool((rows != rows[0]).any())
