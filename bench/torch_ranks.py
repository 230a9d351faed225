"""The ranks of one backend of torch.distributed on this host: processes that wait for orders.

Started once, those of several backends take turns within seconds, so that whatever else the machine
does meets all of them alike. Ranks without an order wait for their pipe, which costs nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import torch
from torch import distributed as dist

Job = Callable[..., Any]
"""job(rank, ranks, *arguments), of a module that the ranks can import."""

_HOST = "127.0.0.1"
_FAREWELL_SECONDS = 10.0


class RankError(RuntimeError):
    """A rank has failed or is late: the others may wait for it, so all of them are ended."""


class Ranks:
    """A process group; no rank uses more than one thread to compute."""

    def __init__(self, backend: str, count: int, limit_seconds: float) -> None:
        """limit_seconds: how long one order may take."""
        self._backend = backend
        self._limit_seconds = limit_seconds
        # A port of its own choice: one that was only found to be free may be taken by then.
        self._store = dist.TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._pipes: list[Connection] = []
        # Not by fork() from here, which would copy what runs here; and torch is loaded only once.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch"])
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, count), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def __enter__(self) -> Ranks:
        try:
            self.run(_join, self._backend, self._store.port)
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _: BaseException | None,
        __: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.run(_leave)
        finally:
            self._end(at_once=kind is not None)

    def run(self, job: Job, *arguments: Any) -> list[Any]:
        """What the job gives, by rank. Raises RankError with what the first rank that fails says,
        or when the time is up."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # the rank has died: see _answer()
                pipe.send((job, arguments))
        deadline = time.monotonic() + self._limit_seconds
        answers: dict[int, Any] = {}
        while len(answers) < len(self._pipes):
            left = [pipe for rank, pipe in enumerate(self._pipes) if rank not in answers]
            ready = wait(left, max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RankError(f"{self._backend}: the time is up")
            for rank, pipe in enumerate(self._pipes):
                if pipe in ready:
                    answers[rank] = self._answer(rank, pipe)
        return [answers[rank] for rank in range(len(self._pipes))]

    def _answer(self, rank: int, pipe: Connection) -> Any:
        try:
            succeeded, answer = pipe.recv()
        except (EOFError, OSError):
            raise RankError(f"{self._backend}: rank {rank} has died") from None
        if not succeeded:
            raise RankError(f"{self._backend}: rank {rank}: {answer}")
        return answer

    def _end(self, at_once: bool) -> None:
        for pipe in self._pipes:
            pipe.close()
        deadline = time.monotonic() + (0 if at_once else _FAREWELL_SECONDS)
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def _serve(orders: Connection, rank: int, count: int) -> None:
    """The main function of a rank: ends when nobody is left who could give orders."""
    # Ctrl-C is for the one who gives orders.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The names of all versions that this is meant for are old ones in some.
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job, arguments = orders.recv()
            try:
                answer = (True, job(rank, count, *arguments))
            except Exception as error:
                answer = (False, f"{type(error).__name__}: {error}")
            orders.send(answer)


def _join(rank: int, count: int, backend: str, port: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if backend == "pyccl":
        import pyccl.torch  # noqa: F401 - with it torch knows the backend
    store = dist.TCPStore(_HOST, port, is_master=False)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count)


def _leave(_: int, __: int) -> None:
    dist.barrier()
    dist.destroy_process_group()
