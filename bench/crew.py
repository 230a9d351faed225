"""Processes on this host that wait for orders.

Started once, several crews can take turns within seconds, so that whatever else the machine does
meets all of them alike. Ranks without an order wait for their pipe, which costs nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable, Collection
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

import torch

Job = Callable[..., Any]
"""job(rank, ranks, *arguments), of a module that the ranks can import."""

_FAREWELL_SECONDS = 10.0


class RankError(RuntimeError):
    """A rank has failed or is late: the others may wait for it, so all of them are ended."""


class Crew:
    """As many processes as `count`; none uses more than one thread to compute."""

    def __init__(self, name: str, count: int, limit_seconds: float) -> None:
        """name: what errors call it. limit_seconds: how long one order may take."""
        self._name = name
        self._count = count
        self._limit_seconds = limit_seconds
        # Not by fork() from here, which would copy what runs here; and torch is loaded only once,
        # with what its first optimizer would load in each rank, which takes as long again.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["torch", "torch._dynamo"])
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._pipes: list[Connection] = []
        for rank in range(count):
            process, pipe = self._start(rank)
            self._processes.append(process)
            self._pipes.append(pipe)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _: BaseException | None,
        __: TracebackType | None,
    ) -> None:
        self._end(at_once=kind is not None)

    def run(self, job: Job, *arguments: Any, doomed: Collection[int] = ()) -> list[Any]:
        """What the job gives, by rank. Raises RankError with what the first rank that fails says,
        or when the time is up.

        doomed: ranks that may die of it; they give None then, and others take their places.
        """
        for pipe in self._pipes:
            with contextlib.suppress(OSError):  # the rank has died: see _answer()
                pipe.send((job, arguments))
        deadline = time.monotonic() + self._limit_seconds
        answers: dict[int, Any] = {}
        while len(answers) < len(self._pipes):
            left = [pipe for rank, pipe in enumerate(self._pipes) if rank not in answers]
            ready = wait(left, max(0.0, deadline - time.monotonic()))
            if not ready:
                raise RankError(f"{self._name}: the time is up")
            for rank, pipe in enumerate(self._pipes):
                if pipe in ready:
                    answers[rank] = self._answer(rank, pipe, rank in doomed)
        return [answers[rank] for rank in range(len(self._pipes))]

    def _answer(self, rank: int, pipe: Connection, doomed: bool) -> Any:
        try:
            succeeded, answer = pipe.recv()
        except (EOFError, OSError):
            if not doomed:
                raise RankError(f"{self._name}: rank {rank} has died") from None
            pipe.close()
            self._processes[rank].join()
            self._processes[rank], self._pipes[rank] = self._start(rank)
            return None
        if not succeeded:
            raise RankError(f"{self._name}: rank {rank}: {answer}")
        return answer

    def _start(self, rank: int) -> tuple[multiprocessing.process.BaseProcess, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, rank, self._count), daemon=True
        )
        process.start()
        theirs.close()
        return process, ours

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
