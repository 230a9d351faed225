"""How torch comes to know the backend, and how it makes groups of it."""

from __future__ import annotations

import functools
from datetime import timedelta
from typing import Any

from torch import distributed as dist
from torch.distributed import distributed_c10d as c10d

from pyccl.errors import PycclError
from pyccl.torch.callbacks import teach_futures
from pyccl.torch.errors import of_torch
from pyccl.torch.process_group import ProcessGroup
from pyccl.torch.rendezvous import World

NAME = "pyccl"


def register() -> None:
    """Once in a process; what has been done is left as it is."""
    if NAME.upper() in dist.Backend._plugins:
        return
    dist.Backend.register_backend(NAME, make, extended_api=True, devices=["cpu", "cuda"])
    _teach_monitored_barrier()
    _teach_shutdown()
    teach_futures()


def make(options: Any, given: Any = None) -> ProcessGroup:
    """The process group that torch asks for; `given` are its pg_options, and may be one.

    What is made of the ranks of a group of ours is a subgroup of its communicator: at once, and
    without new connections.
    """
    if isinstance(given, ProcessGroup):
        return given
    timeout: timedelta = options.timeout
    whole = c10d.GroupMember.WORLD
    ranks = list(options.global_ranks_in_group)
    if isinstance(whole, ProcessGroup) and ranks and not whole._closed:
        run = whole._run
        try:
            group = run.subgroup(ranks, options.group_id)
        except PycclError as error:
            raise of_torch(error, f"new_group of ranks {ranks}") from error
        return ProcessGroup(run, group, timeout, owns=False)
    world = World(
        options.store, options.group_rank, options.group_size, timeout,
        f"process group {options.group_id!r}",
    )  # fmt: skip
    return ProcessGroup(world, world.group, timeout, owns=True)


def _teach_monitored_barrier() -> None:
    """torch's own refuses every backend but one by its name."""
    torchs = c10d.monitored_barrier

    @functools.wraps(torchs)
    def monitored_barrier(
        group: Any = None, timeout: Any = None, wait_all_ranks: bool = False
    ) -> None:
        used = c10d.GroupMember.WORLD if group is None else group
        if not isinstance(used, ProcessGroup):
            torchs(group, timeout, wait_all_ranks)
            return
        if isinstance(timeout, (int, float)):
            timeout = timedelta(seconds=timeout)
        used.monitored_barrier(timeout, wait_all_ranks)

    c10d.monitored_barrier = dist.monitored_barrier = monitored_barrier


def _teach_shutdown() -> None:
    """torch 2.6 ends groups of one backend only, known by its name; later ones call shutdown()."""
    torchs = getattr(c10d, "_shutdown_backend", None)
    if torchs is None:
        return

    @functools.wraps(torchs)
    def shutdown(group: Any) -> None:
        if isinstance(group, ProcessGroup):
            group.shutdown()
        else:
            torchs(group)

    c10d._shutdown_backend = shutdown
