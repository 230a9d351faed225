"""How process groups end with their process, in whichever way that ends.

Members leave in good order. A coordinator stays until all have left, as far as this process may
wait for them: while it lives, and for a little longer.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from multiprocessing import util
from typing import Protocol

import pyccl

logger = logging.getLogger("pyccl.torch")

_SECONDS = 5.0


class Membership(Protocol):
    def close(self) -> None:
        """Leaves, and hands over its coordinator by keep()."""


_members: list[Membership] = []
_hosted: list[pyccl.Coordinator] = []
_process = 0


def expect(member: Membership) -> None:
    """Has it leave at the end of the process, unless it was forgotten."""
    global _process
    _end_idle()
    if _process != os.getpid():
        # What a fork has inherited is none of its business.
        _process = os.getpid()
        _members.clear()
        _hosted.clear()
        atexit.register(_leave_all)
        # What multiprocessing has started ends without atexit.
        util.Finalize(None, _leave_all, exitpriority=0)
    _members.append(member)


def forget(member: Membership) -> None:
    if member in _members:
        _members.remove(member)


def keep(coordinator: pyccl.Coordinator) -> None:
    """Its own member has left; it stays for the others."""
    _hosted.append(coordinator)
    _end_idle()


def _end_idle() -> None:
    if _process == os.getpid():
        for one in [one for one in _hosted if one.members == 0]:
            _hosted.remove(one)
            one.stop()


def _leave_all() -> None:
    if _process != os.getpid():
        return
    while _members:
        _members.pop().close()
    deadline = time.monotonic() + _SECONDS
    while _hosted and time.monotonic() < deadline:
        _end_idle()
        time.sleep(0.005)
    if _hosted:
        logger.info("ends a coordinator before all ranks have left")
    while _hosted:
        _hosted.pop().stop()
