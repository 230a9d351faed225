"""Whether all peers hold the same bits, found out while they train."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from pyccl.communicator import Communicator
from pyccl.errors import CancelledError, OperationTimeout, PeerLostError, PycclError
from pyccl.optim.outer import OuterState
from pyccl.work import Work

# Out of the way of the caller's tags.
_TAG = 0xFFFFFFFC
_FAILURES = (CancelledError, OperationTimeout, PeerLostError)


class Comparison:
    """A gathering of digests that nobody waits for until its result is asked for. All peers of the
    group begin and end it at the same places."""

    def __init__(self, state: OuterState, comm: Communicator, timeout: float | None) -> None:
        self._state = state
        self._comm = comm
        self._timeout = timeout
        self._work: Work[Any] | None = None
        self._doubt = False
        self.alone = False
        """There is no other group in the run, as all members have said at the last survey()."""

    def survey(self) -> None:
        """Behind a sync: asks all whether they see other groups. A sync is one of the whole run,
        and where there are others it must not depend on what only this group knows."""
        self.alone = False
        try:
            seen = self._comm.all_gather(
                np.array([self._comm.groups], np.uint32), tag=_TAG, timeout=self._timeout
            )
        except _FAILURES:
            return
        self.alone = bool((seen == 1).all())

    def begin(self) -> str:
        """With what the state is now; its digest."""
        digest = self._state.hash()
        row = np.array([int(digest[:16], 16), int(digest[16:], 16), self._state.step], np.uint64)
        self._work = self._comm.all_gather(row, tag=_TAG, timeout=self._timeout, async_op=True)
        return digest

    def suspect(self) -> None:
        """A sync has failed, for all members alike: differs() says yes next time."""
        self._doubt = True

    def wait(self) -> None:
        """Until differs() will not have to. An interrupt leaves all as it was."""
        if self._work is not None:
            with contextlib.suppress(PycclError):
                self._work.wait()

    def differs(self) -> bool:
        """Waits for the gathering that has begun. True: some peer held other bits, or it has not
        come about; the same on all of them. False also where none has begun."""
        differs = self._doubt
        if self._work is not None:
            try:
                rows = self._work.wait()
                differs = differs or bool((rows != rows[0]).any())
            except _FAILURES:
                differs = True
        self._work, self._doubt = None, False
        return differs
