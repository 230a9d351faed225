"""pyccl as a process group of torchft, whose manager makes a new one for each quorum.

    from pyccl.torch.torchft import ProcessGroupPyccl
    manager = torchft.Manager(pg=ProcessGroupPyccl(timeout=timedelta(seconds=30)), ...)

Needs torchft; the rest of the package does not. An ElasticGroup does the same with less: its ranks
come and go without a new group, and a step that loses a rank counts.
"""

from __future__ import annotations

from torch import distributed as dist
from torchft.process_group import ProcessGroupWrapper

from pyccl.errors import PycclError
from pyccl.torch.errors import BackendError
from pyccl.torch.process_group import ProcessGroup
from pyccl.torch.rendezvous import World


class ProcessGroupPyccl(ProcessGroupWrapper):  # type: ignore[misc]
    """configure() meets the ranks of a quorum by its store: rank 0 runs their coordinator."""

    def _create_pg(self, store: dist.Store, rank: int, world_size: int) -> ProcessGroup:
        name = f"quorum {self._quorum_id}, replica {self._replica_id}"
        world = World(store, rank, world_size, self._timeout, name)
        return ProcessGroup(world, world.group, self._timeout, owns=True)

    def errored(self) -> BackendError | None:
        """What has ended the group, if something has: it wants another quorum."""
        return None if self._pg is None else self._pg.errored()

    def shutdown(self) -> None:
        """Leaves in good order."""
        if self._pg is not None:
            try:
                self._pg.shutdown()
            except PycclError:
                self._pg.abort()
        super().shutdown()

    def set_timeout(self, timeout: object) -> None:
        super().set_timeout(timeout)
        if self._pg is not None:
            self._pg.set_timeout(timeout)

    def getBackendName(self) -> str:  # noqa: N802 - torch's name
        return "torchft-pyccl"
