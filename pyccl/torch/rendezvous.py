"""From a store, which all ranks share, to a communicator among them.

Rank 0 runs the coordinator on a thread of its own and says in the store where; with
PYCCL_COORDINATOR=host:port one that runs already is used instead.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import time
from datetime import timedelta

import numpy as np
from torch import distributed as dist

import pyccl
from pyccl.torch import farewells
from pyccl.torch.errors import BackendError, OperationTimeout
from pyccl.torch.tags import WATCH_OF_OTHERS, WATCH_OF_RANK_0

COORDINATOR = "PYCCL_COORDINATOR"
INTERFACE = "PYCCL_LISTEN"
# With the coordinator's process its host is lost as a rank, too, and somebody has to say so.
_COORDINATOR_LIMIT = 1.5
_KEY = "coordinator"
_FOREVER = 1e8
# Of the documentation's network: no packet goes there, but the way that one would take is known.
_ELSEWHERE = "192.0.2.1"
# It ends in the same step as all that a loss ends.
_WATCH_SECONDS = 0.5
# As the core names those that the run has lost; the rank is that of the run.
_NAMED = re.compile(r"peer ([0-9a-f]{16}) \(rank \d+\)")


class World:
    """The communicator of a process group, and the coordinator where this process runs it.

    Groups that are made of its ranks later are subgroups of it, so it lives until all have gone.
    """

    def __init__(
        self, store: dist.Store, rank: int, size: int, timeout: timedelta, name: str
    ) -> None:
        self._coordinator: pyccl.Coordinator | None = None
        self._hosted = COORDINATOR not in os.environ
        deadline = time.monotonic() + timeout.total_seconds()
        communicator = None
        try:
            address = self._find_coordinator(store, rank, timeout)
            communicator = pyccl.connect(
                address,
                world_size_min=size,
                timeout=max(deadline - time.monotonic(), 0.001),
                operation_timeout=timeout.total_seconds(),
                coordinator_limit=_COORDINATOR_LIMIT if self._hosted else None,
                listen=os.environ.get(INTERFACE),
            )
            if self._coordinator is not None:
                # All have read it, or they would not be here. A group that is made of this store
                # later must not find it.
                store.delete_key(_KEY)
            self.group = self._group_of(communicator, rank, size)
        except BaseException as error:
            self._give_up(store, communicator)
            if not isinstance(error, pyccl.PycclError):
                raise
            made = OperationTimeout if isinstance(error, pyccl.OperationTimeout) else BackendError
            raise made(f"init of {name}, rank {rank} of {size}: {error}") from error
        self.communicator = communicator
        # What is open when somebody is lost is told who, and why; what begins later, when the
        # caller was at something else, is not. Here rank 0 waits for the others, and they for it.
        self._watch = self.group.barrier(
            tag=WATCH_OF_RANK_0 if rank == 0 else WATCH_OF_OTHERS, timeout=_FOREVER, async_op=True
        )
        farewells.expect(self)

    @staticmethod
    def _group_of(communicator: pyccl.Communicator, rank: int, size: int) -> pyccl.Subgroup:
        """Of these peers and no others, whoever comes later, by the ranks of the launcher: those of
        the view come from the order of joining."""
        ranks = communicator.all_gather(np.array([rank]), on_loss="raise")[:, 0].tolist()
        if sorted(ranks) != list(range(size)):
            raise pyccl.PycclError(
                f"there are peers of ranks {sorted(ranks)}, but there should be {size}, from 0; "
                "does another job use this coordinator?"
            )
        return communicator.subgroup([ranks.index(one) for one in range(size)])

    def _find_coordinator(self, store: dist.Store, rank: int, timeout: timedelta) -> str:
        if not self._hosted:
            return os.environ[COORDINATOR]
        if rank == 0:
            host = own_address(store)
            try:
                self._coordinator = pyccl.Coordinator(f"[{host}]:0" if ":" in host else f"{host}:0")
            except pyccl.PycclError:
                store.set(_KEY, "")  # the others need not wait for it
                raise
            store.set(_KEY, self._coordinator.address)
            return self._coordinator.address
        try:
            store.wait([_KEY], timeout)
        except Exception as error:
            raise pyccl.OperationTimeout(
                f"rank 0 has not said within {timeout.total_seconds():g} s where the coordinator "
                f"is: {error}"
            ) from error
        address = bytes(store.get(_KEY)).decode()
        if not address:
            raise pyccl.PycclError("rank 0 could not start the coordinator, and says why")
        return address

    def _give_up(self, store: dist.Store, communicator: pyccl.Communicator | None) -> None:
        if communicator is not None:
            communicator.close()
        if self._coordinator is not None:
            self._coordinator.stop()
            store.delete_key(_KEY)

    def subgroup(self, ranks: list[int], name: str) -> pyccl.Subgroup:
        """Of ranks of this group."""
        return self.group.subgroup(ranks, name)

    def lost(self, peers: tuple[str, ...]) -> tuple[int, ...]:
        """Places among these of those whose loss has ended the group. Others have left because of
        it, and who learns of it late shall not take them for lost."""
        absent = set(peers).difference(self.communicator.peers)
        try:
            self._watch.wait(_WATCH_SECONDS)
        except pyccl.PeerLostError as error:
            absent = absent.intersection(_NAMED.findall(str(error))) or absent
        except pyccl.PycclError:
            pass  # it is no view that tells of this loss, or the group was closed here
        return tuple(place for place, peer in enumerate(peers) if peer in absent)

    @property
    def host(self) -> str | None:
        """The peer that runs the coordinator, so that they are lost together; None: no peer."""
        return self.group.peers[0] if self._hosted else None

    def close(self) -> None:
        """Leaves. A coordinator in this process goes on for those who are still there."""
        self.communicator.leave()
        farewells.forget(self)
        if self._coordinator is not None:
            farewells.keep(self._coordinator)
            self._coordinator = None

    def abort(self) -> None:
        """As if this process had died."""
        self.communicator.close()
        farewells.forget(self)
        if self._coordinator is not None:
            self._coordinator.stop()


def own_address(store: dist.Store) -> str:
    """Where the other ranks reach this process: on the way to the store that they reach, too."""
    given = os.environ.get(INTERFACE)
    if given:
        return given.rsplit(":", 1)[0].strip("[]")
    host = _host_of(store)
    own = _on_the_way_to(host) if host else "127.0.0.1"  # a file, or this process's memory
    if _is_name(host) and ipaddress.ip_address(own).is_loopback:
        # Debian's hosts know their own names by an address that no other host can reach.
        return _on_the_way_to(_ELSEWHERE, otherwise=own)
    return own


def _host_of(store: dist.Store) -> str:
    """Empty: it has none."""
    while isinstance(store, dist.PrefixStore):
        store = store.underlying_store
    return str(store.host) if isinstance(store, dist.TCPStore) else ""


def _on_the_way_to(host: str, otherwise: str = "127.0.0.1") -> str:
    for family, kind, proto, _, address in socket.getaddrinfo(host, 1, type=socket.SOCK_DGRAM):
        try:
            with socket.socket(family, kind, proto) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return otherwise


def _is_name(host: str) -> bool:
    """Of a host, which each host may know by another address."""
    if host in ("", "localhost"):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False
