"""Where futures are completed: on threads that their callbacks may block.

The callbacks of a torch future run where it is completed, and may wait for other operations, as
hooks of DDP do. On the thread that learns of the ends of operations they would wait for themselves.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable


class _Completions:
    """As many threads as have something to do, which stay for what comes next."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    def submit(self, task: Callable[[], object]) -> None:
        with self._lock:
            self._tasks.put(task)
            if self._idle > 0:
                self._idle -= 1
                return
        threading.Thread(target=self._run, name="pyccl-futures", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._tasks.get()()
            with self._lock:
                self._idle += 1


_instance = _Completions()


def submit(task: Callable[[], object]) -> None:
    """Has the task run soon, on a thread of its own as long as that takes. It must not raise."""
    _instance.submit(task)


def _after_fork() -> None:
    global _instance
    _instance = _Completions()  # the child has none of the threads


os.register_at_fork(after_in_child=_after_fork)
