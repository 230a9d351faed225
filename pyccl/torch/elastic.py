"""A process group whose ranks come and go."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from torch import distributed as dist

import pyccl
from pyccl.errors import PycclError
from pyccl.torch.process_group import ProcessGroup

_TIMEOUT = timedelta(seconds=300)
Result = TypeVar("Result")


class ElasticGroup(ProcessGroup):
    """All members of a run, or of one of its groups, as a process group: rank() and size() are
    those of the present view.

    Its all_reduce, reduce, broadcast and barrier begin again among the survivors when a rank is
    lost; operations whose result is cut by rank raise PeerLostError, and the group goes on.
    Newcomers wait until all ranks call update() or sync(), and nothing else changes ranks but a
    loss. A training loop is

        group = pyccl.torch.ElasticGroup.connect("host:port")
        model = pyccl.torch.ElasticDDP(model, group)
        state = pyccl.torch.shared_state(model.module, optimizer)
        while state.revision < steps:
            group.sync(state)   # admits newcomers, and gives them the state
            ...                 # forward, backward, optimizer.step()
            state.revision += 1

    A grid of replicas and shards has an ElasticGroup for each shard: ranks that hold the same shard
    give connect() the same `group=`. All groups of one coordinator admit newcomers at the same
    boundary, and update() and sync() wait for all ranks of all groups, so no shard sees a replica
    that another one does not. Within a replica use a ProcessGroup, with a coordinator of its own: a
    rank of it calls no update(), for which the others would wait.
    """

    # Ranks that are lost between a caller's look at their number and its call make sizes wrong at
    # some ranks only. The core refuses such a call for all; here it would be refused by some, and
    # the others would wait for them.
    _fixed = False

    def __init__(self, communicator: pyccl.Communicator, timeout: timedelta = _TIMEOUT) -> None:
        super().__init__(_Members(communicator), communicator, timeout, owns=True)
        self.communicator = communicator

    @classmethod
    def connect(
        cls, address: str, *, timeout: timedelta = _TIMEOUT, **options: Any
    ) -> ElasticGroup:
        """Joins the run of the coordinator at `address` ("host:port"), and blocks until admitted.

        timeout: of operations that name none.
        options: those of pyccl.connect(), above all `group` and `world_size_min`.
        """
        options.setdefault("operation_timeout", timeout.total_seconds())
        return cls(pyccl.connect(address, **options), timeout)

    def install(self) -> ElasticGroup:
        """Makes it the default group of torch.distributed, for calls that name none."""
        dist.init_process_group(
            "pyccl", store=dist.HashStore(), rank=0, world_size=1, pg_options=self
        )
        return self

    def getRank(self) -> int:  # noqa: N802 - as C++ calls it
        return int(self._group.rank)

    def getSize(self) -> int:  # noqa: N802
        return int(self._group.world_size)

    rank = getRank
    size = getSize

    @property
    def peers_pending(self) -> bool:
        """Newcomers waited when the last operation ended whose wait has returned here: the same on
        all ranks."""
        return bool(self._group.peers_pending)

    def update(self, timeout: timedelta | None = None) -> pyccl.View:
        """The boundary at which newcomers come in; all ranks call it, of all groups of the run."""
        return self._translated("update", self.communicator.update, timeout)

    def sync(
        self, state: pyccl.SharedState, *, timeout: timedelta | None = None, **options: Any
    ) -> pyccl.SyncInfo:
        """update(), and then the newest state for all; see pyccl.Communicator.sync()."""
        return self._translated(
            "sync",
            lambda seconds: self.communicator.sync(state, timeout=seconds, **options),
            timeout,
        )

    def _translated(
        self, name: str, call: Callable[[float], Result], timeout: timedelta | None
    ) -> Result:
        seconds = self._limit(None, timeout)
        self._drain()
        self._position = 0  # as newcomers begin
        try:
            return call(seconds)
        except PycclError as error:
            raise self._translator(name, seconds)(error) from error


class _Members:
    """The run of an elastic group: its communicator."""

    host = None

    def __init__(self, communicator: pyccl.Communicator) -> None:
        self._communicator = communicator

    def lost(self, peers: tuple[str, ...]) -> tuple[int, ...]:
        # Ranks of a view that is over would name others in the present one.
        return ()

    def subgroup(self, ranks: list[int], name: str) -> pyccl.Subgroup:
        return self._communicator.subgroup(ranks, name)

    def close(self) -> None:
        self._communicator.leave()

    def abort(self) -> None:
        self._communicator.close()
