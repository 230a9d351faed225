"""A barrier that tells who did not come: every rank reports to rank 0, which answers all."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from pyccl.errors import PycclError
from pyccl.torch.errors import BackendError, OperationTimeout
from pyccl.torch.tags import MONITORED_BARRIER

if TYPE_CHECKING:
    import pyccl


def monitored_barrier(
    group: pyccl.Subgroup, where: str, seconds: float, wait_all_ranks: bool
) -> None:
    """Returns when all ranks have called it within `seconds` of rank 0's call. Otherwise rank 0
    raises OperationTimeout that names the first rank that is missing, or with `wait_all_ranks`
    all of them, and the others that rank 0 did not answer."""
    deadline = time.monotonic() + seconds
    if seconds <= 0:
        raise OperationTimeout(
            f"{where}: Rank {group.rank} timed out in monitoredBarrier after "
            f"{1000 * seconds:.0f} ms."
        )
    if group.rank == 0:
        _await_all(group, where, deadline, seconds, wait_all_ranks)
    else:
        _report(group, where, deadline)


def _await_all(
    group: pyccl.Subgroup, where: str, deadline: float, seconds: float, wait_all_ranks: bool
) -> None:
    others = range(1, group.world_size)
    # All at once, since those who have come must not wait for one who has not.
    reports = [
        group.recv(
            np.zeros(1, np.uint8), rank, MONITORED_BARRIER, timeout=_left(deadline), async_op=True
        )
        for rank in others
    ]
    missing = []
    causes = []
    for rank, report in zip(others, reports, strict=True):
        try:
            report.wait()
        except PycclError as error:
            missing.append(rank)
            causes.append(f"rank {rank}: {error}")
            if not wait_all_ranks:
                break
    if missing:
        who = f"Rank{'s' if wait_all_ranks else ''} {', '.join(map(str, missing))}"
        raise OperationTimeout(
            f"{where}: {who} failed to pass monitoredBarrier in {1000 * seconds:.0f} ms: "
            + "; ".join(causes),
            ranks=tuple(missing),
        )
    word = np.zeros(1, np.uint8)
    answers = [
        group.send(word, rank, MONITORED_BARRIER, timeout=_left(deadline), async_op=True)
        for rank in others
    ]
    for answer in answers:
        answer.wait()


def _report(group: pyccl.Subgroup, where: str, deadline: float) -> None:
    word = np.zeros(1, np.uint8)
    try:
        group.send(word, 0, MONITORED_BARRIER, timeout=_left(deadline))
        group.recv(word, 0, MONITORED_BARRIER, timeout=_left(deadline))
    except PycclError as error:
        raise BackendError(
            f"{where}: Rank {group.rank} successfully reached monitoredBarrier, but received "
            f"errors while waiting for send/recv from rank 0. Please check rank 0 logs for faulty "
            f"rank. Original exception: {error}"
        ) from error


def _left(deadline: float) -> float:
    # Who is late by a little shall be told of by the operation, not by its arguments.
    return max(deadline - time.monotonic(), 0.001)
