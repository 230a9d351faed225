"""One collective again and again at every peer of a cluster, each result looked at. Loaded by file
in the peers' processes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from process.jobs import order

import pyccl
from pyccl.testing import report

KINDS = (
    "all_reduce", "all_gather", "all_to_all", "reduce_scatter", "broadcast", "reduce", "gather",
    "scatter", "exchange",
)  # fmt: skip
QUANTIZED = ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "exchange")
# A block of equal numbers comes back exactly: what goes back and forth here is nothing else.
EXACT = "fp4_e3m0"


class Round(NamedTuple):
    """How one operation ended at one peer."""

    number: int
    lost: bool
    """With PeerLostError."""
    members: int
    """That took part; 0 if lost."""
    timed_out: bool = False
    """An exchange whose partner did not come."""
    epoch: str = ""
    """Of the view that an exchange has certainly taken its partner from; "" if that is not sure."""


def call(
    comm: pyccl.Communicator, kind: str, size: int, first_rank: int, codec: str | None = None
) -> int:
    """One operation of `size` f32 in all, whose result is what it must be; who took part."""
    world, rank = comm.world_size, comm.rank
    share = size // world
    whole = np.full((world, share), 1.0, np.float32)
    own = np.full(share, 1.0 + rank, np.float32)
    if kind == "all_reduce":
        x = np.ones(size, np.float32)
        members = comm.all_reduce(x, quantization=codec).members
        assert (x == members).all()
        return members
    if kind == "all_gather":
        # Begun again after a loss, which some have seen before their call and others after it:
        # what a peer gives must not depend on that.
        fixed = np.full(size // 4, 1.0 + first_rank, np.float32)
        y = comm.all_gather(fixed, quantization=codec)
        # A smaller group has kept its order, and so a subset of the values.
        assert (y == y[:, :1]).all()
        assert (np.diff(y[:, 0]) > 0).all()
        return len(y)
    if kind == "all_to_all":
        y = comm.all_to_all(whole * (1.0 + rank), timeout=30)
        assert (y == np.arange(1.0, world + 1, dtype=np.float32)[:, None]).all()
    elif kind == "reduce_scatter":
        assert (comm.reduce_scatter(whole, quantization=codec) == world).all()
    elif kind == "broadcast":
        x = np.full(size, 7.0 if rank == 0 else 0.0, np.float32)
        members = comm.broadcast(x, root=0, quantization=codec).members
        assert (x == 7.0).all()
        return members
    elif kind == "reduce":
        x = np.ones(size, np.float32)
        members = comm.reduce(x, root=0).members
        assert (x == (members if rank == 0 else 1.0)).all()
        return members
    elif kind == "gather":
        y = comm.gather(own, root=0)
        assert (y is None) == (rank != 0)
        assert y is None or (y == np.arange(1.0, world + 1, dtype=np.float32)[:, None]).all()
    elif kind == "scatter":
        y = comm.scatter(whole * np.arange(1.0, world + 1, dtype=np.float32)[:, None], root=0)
        assert (y == rank + 1.0).all()
    return world


def swap(
    comm: pyccl.Communicator, size: int, codec: str | None = None
) -> tuple[int, bool, bool, str]:
    """An exchange of ids with a neighbour, as Round has it. Ranks name members of the caller's
    present view, so two that see it change at different moments may mean different partners, and
    then wait in vain."""
    view = comm.view
    partner = view.rank ^ 1
    if partner >= view.world_size:
        return view.world_size, False, False, str(view.epoch)
    out = np.empty(size, np.float32)
    mine = np.full(size, float(int(comm.peer[:4], 16)), np.float32)
    try:
        work = comm.exchange(mine, out, peer=partner, quantization=codec, timeout=8, async_op=True)
    except pyccl.PeerLostError:
        return 0, True, False, ""
    epoch = str(view.epoch) if comm.epoch == view.epoch else ""
    try:
        work.wait()
    except pyccl.PeerLostError:
        return 0, True, False, epoch
    except pyccl.OperationTimeout:
        return 0, True, True, epoch
    if epoch:
        assert (out == float(int(view.peers[partner][:4], 16))).all()
    return view.world_size, False, False, epoch


def loop(
    comm: pyccl.Communicator, index: int, kind: str, size: int, codec: str | None = None
) -> str:
    """The operation again and again until a peer is told "end"; reports its rank, then how each
    one ended."""
    number, told, first_rank = 0, None, comm.rank
    report(first_rank)
    while True:
        told = told or order()
        agreed: Any = np.array([float(number), float(told == "end")])
        number = round(agreed[0])
        comm.all_reduce(agreed, op="max", tag=1)
        if agreed[1] > 0:
            return "ended"
        if kind == "exchange":
            members, lost, timed_out, epoch = swap(comm, size, codec)
            report(Round(number, lost, members, timed_out, epoch))
        else:
            try:
                members, lost = call(comm, kind, size, first_rank, codec), False
            except pyccl.PeerLostError:
                members, lost = 0, True
            report(Round(number, lost, members))
        number += 1
