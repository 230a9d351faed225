"""The process group of torch.distributed: its place in the run, its errors, its end.

The operations themselves are in reductions.py and movements.py.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist

from pyccl.torch import errors
from pyccl.torch.calls import Run
from pyccl.torch.monitored import monitored_barrier
from pyccl.torch.movements import Movements
from pyccl.torch.reductions import Reductions
from pyccl.torch.work import Together, Work

_SHUTDOWN_SECONDS = 5.0


class ProcessGroup(Reductions, Movements, dist.ProcessGroup):  # type: ignore[misc]
    """The backend "pyccl" of torch.distributed; init_process_group() and new_group() make it.

    Its ranks are fixed. Once one of them is lost every operation raises PeerLostError, which is a
    DistBackendError, on all the others: destroy the group then, and make a new one.
    """

    supports_splitting = False
    supports_coalescing = False
    supports_time_estimate = False

    def __init__(self, run: Run, group: Any, timeout: timedelta, *, owns: bool) -> None:
        # Not by super(): the classes of torch know nothing of the others.
        dist.ProcessGroup.__init__(self, group.rank, group.world_size)
        Reductions.__init__(self, run, group, timeout.total_seconds())
        self._owns = owns
        self._described = "undefined"

    # ---- what torch asks of any group
    def getBackendName(self) -> str:  # noqa: N802 - as C++ calls it
        return "pyccl"

    def name(self) -> str:
        return "pyccl"

    def getGroupName(self) -> str:  # noqa: N802
        return self._named

    def setGroupName(self, name: str) -> None:  # noqa: N802
        self._named = name

    def getGroupDesc(self) -> str:  # noqa: N802
        return self._described

    def setGroupDesc(self, description: str) -> None:  # noqa: N802
        self._described = description

    # Where torch wants the backend of a device, which elsewhere is another object.
    def _get_backend(self, device: torch.device) -> ProcessGroup:
        return self

    @property
    def _device_types(self) -> list[torch.device]:
        return [torch.device("cpu"), torch.device("cuda")]

    def _has_hooks(self) -> bool:
        return False

    def _set_sequence_number_for_group(self) -> None:
        pass  # it begins with 0 everywhere

    def _get_sequence_number_for_group(self) -> int:
        """How many operations of the group have been called here."""
        return self._sequence

    def set_timeout(self, timeout: timedelta) -> None:
        """For operations that name none."""
        self._seconds = timeout.total_seconds()

    _set_default_timeout = set_timeout

    # ---- its end
    def errored(self) -> errors.BackendError | None:
        """The error that has ended the group, as far as operations have told of it; else None."""
        return self._ended

    def shutdown(self) -> None:
        """Leaves in good order: the others see it and do not wait."""
        if not self._closed:
            self._drain(_SHUTDOWN_SECONDS)  # what was sent is on its way then
            self._close()
            if self._owns:
                self._run.close()

    def abort(self) -> None:
        """Ends at once, open operations with ClosedError; to the others this rank has died. Of a
        group that is a part of another one only this: no more operations begin."""
        if not self._closed:
            self._close()
            if self._owns:
                self._run.abort()

    # ---- operations
    def monitored_barrier(
        self, timeout: timedelta | None = None, wait_all_ranks: bool = False
    ) -> None:
        """A barrier of which rank 0 tells who has not come: the first one, or all of them."""
        where = self._where("monitored_barrier")
        seconds = self._seconds if timeout is None else timeout.total_seconds()
        if self._closed:
            raise errors.ClosedError(f"{where}: the group was destroyed")
        self._sequence += 1
        monitored_barrier(self._group, where, seconds, wait_all_ranks)

    def _start_coalescing(self, device: torch.device) -> None:
        self._coalesced = []

    def _end_coalescing(self, device: torch.device) -> Work:
        works, self._coalesced = self._coalesced or [], None
        return Together(works)
