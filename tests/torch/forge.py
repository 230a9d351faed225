"""A program that loads torch once, and forks ranks as tests order them: see crews.py.

A line of JSON on standard input makes a crew; the end of the input ends all. On standard output
there is a line of JSON for each report of a rank, and for each end of one.
A rank is a fork of a process that has no threads yet, and ends as any program does.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple

# One core for each rank; more threads only get into each other's way.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["GLOO_SOCKET_IFNAME"] = "lo"

# What forks inherit, they need not load. DDP loads _dynamo when it is used.
import torch._dynamo
import torch.distributed.checkpoint
import torch.distributed.fsdp
import torch.distributed.tensor.parallel  # noqa: F401
from torch import distributed as dist

import pyccl.torch  # noqa: F401

_PR_SET_PDEATHSIG = 1


class Rank:
    """What a job gets: its place in the crew, and stores to meet the others in."""

    def __init__(self, order: dict[str, Any], rank: int, doors: list[socket.socket]) -> None:
        self.rank = rank
        self.world: int = order["world"]
        self.arguments: dict[str, Any] = order["arguments"]
        self.folder = Path(order["folder"])
        self._crew = order["crew"]
        self._doors = doors

    def report(self, **event: Any) -> None:
        """To the test. A short line is written as a whole, whoever else writes."""
        report(crew=self._crew, rank=self.rank, **event)

    def store(self, number: int, size: int, hosts: bool) -> dist.Store:
        """The store of that number. The sockets were opened before the fork, so that there is no
        free port to be guessed; who does not host one has to close it, or nobody would be told
        that its host is gone."""
        door = self._doors[number]
        port = door.getsockname()[1]
        fd = door.detach()
        if hosts:
            return dist.TCPStore("127.0.0.1", port, size, True, master_listen_fd=fd)
        os.close(fd)
        return dist.TCPStore("127.0.0.1", port, size, False)


class Member(NamedTuple):
    crew: int
    rank: int
    pid: int


def report(**event: Any) -> None:
    os.write(REPORTS, json.dumps(event).encode() + b"\n")


def fork(order: dict[str, Any]) -> Rank | list[Member]:
    """The members, or in each of them its Rank."""
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(order["stores"])]
    members = []
    for rank in range(order["world"]):
        pid = os.fork()
        if pid == 0:
            # Whatever becomes of this program, no rank is left behind.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            log = os.open(Path(order["folder"]) / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            return Rank(order, rank, doors)
        members.append(Member(order["crew"], rank, pid))
    for door in doors:
        door.close()
    report(crew=order["crew"], pids=[member.pid for member in members])
    return members


def serve() -> tuple[str, Rank] | None:
    """Forks what is ordered and tells of each end. A fork returns with its job."""
    poll = selectors.DefaultSelector()
    poll.register(0, selectors.EVENT_READ)
    rest = b""
    while True:
        for key, _ in poll.select():
            if key.fd == 0:
                read = os.read(0, 65536)
                if not read:
                    return None
                *lines, rest = (rest + read).split(b"\n")
                for line in lines:
                    order = json.loads(line)
                    made = fork(order)
                    if isinstance(made, Rank):
                        poll.close()
                        return order["job"], made
                    for member in made:
                        poll.register(os.pidfd_open(member.pid), selectors.EVENT_READ, member)
            else:
                poll.unregister(key.fd)
                os.close(key.fd)
                _, status = os.waitpid(key.data.pid, 0)
                ended = os.waitstatus_to_exitcode(status)
                report(crew=key.data.crew, rank=key.data.rank, ended=ended)


def main() -> None:
    mine = serve()
    if mine is None:
        return
    job, rank = mine
    module, function = job.split(":")
    try:
        getattr(importlib.import_module(module), function)(rank)
    except BaseException:
        traceback.print_exc()
        # The others wait for this rank, maybe in the farewell of the interpreter.
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    # Reports have the output to themselves: what else is printed, goes where errors go.
    REPORTS = os.dup(1)
    os.dup2(2, 1)
    sys.modules["forge"] = sys.modules["__main__"]
    import parity  # noqa: F401 - with all that it needs

    # What has been loaded is no rank's to collect, not even at its end, which takes a second.
    gc.collect()
    gc.freeze()
    main()
