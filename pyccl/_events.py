"""How the core's threads reach Python without ever taking its lock.

They add one to an event descriptor. A single Python thread, started when it is first needed, sleeps
on that descriptor; it runs the callbacks of calls that have ended and hands log lines to `logging`.
So the core never waits for a busy interpreter, and one that shuts down has nobody to wait for.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import traceback
import weakref
from collections.abc import Callable
from functools import partial
from typing import Protocol

from pyccl import _core

logger = logging.getLogger("pyccl")

# By the core's LogLevel.
_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


class Closable(Protocol):
    def close(self) -> None: ...


class _Events:
    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._watched: list[tuple[_core.Work, Callable[[], object]]] = []
        self._logs: weakref.WeakSet[Log] = weakref.WeakSet()
        self._thread: threading.Thread | None = None

    def watch(self, work: _core.Work, callback: Callable[[], object]) -> None:
        with self._lock:
            self._watched.append((work, callback))
            self._start()
        work.notify(self.fd)

    def add_log(self, log: Log) -> None:
        with self._lock:
            self._logs.add(log)
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pyccl-events", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            os.eventfd_read(self.fd)
            with self._lock:
                ended = [one for one in self._watched if one[0].done()]
                self._watched = [one for one in self._watched if one not in ended]
                logs = list(self._logs)
            for log in logs:
                log.forward()
            while ended:  # and none is kept while this waits for the next event
                _survive("a callback of a pyccl.Work", ended.pop(0)[1])


def _survive(what: str, function: Callable[[], object]) -> None:
    """Calls what others have written. Whatever it raises, even SystemExit, is reported and goes no
    further: everybody who awaits something depends on this thread."""
    try:
        function()
    except BaseException:
        try:
            logger.exception("%s raised", what)
        except BaseException:
            traceback.print_exc()


class Log:
    """The log lines of one communicator or coordinator on their way to `logging`."""

    def __init__(self, name: str) -> None:
        events = _events()
        self._logger = logging.getLogger(f"pyccl.{name}")
        level_min = 0 if self._logger.isEnabledFor(logging.DEBUG) else 1
        self.lines = _core.LogLines(events.fd, level_min)
        self._order = threading.Lock()
        events.add_log(self)

    def forward(self) -> None:
        """Also called when the source has ended, so that its last words come before its end."""
        with self._order:
            for level, text in self.lines.drain():
                # Handlers and filters are the program's own.
                _survive("logging", partial(self._logger.log, _LEVELS[level], "%s", text))


_instance: _Events | None = None
_open: weakref.WeakSet[Closable] = weakref.WeakSet()


def _events() -> _Events:
    global _instance
    if _instance is None:
        _instance = _Events()
    return _instance


def watch(work: _core.Work, callback: Callable[[], object]) -> None:
    """Has `callback` run once, on the events thread, when the call has ended."""
    _events().watch(work, callback)


def close_at_exit(thing: Closable) -> None:
    """Threads of the core must have ended before the process takes down what they use."""
    _open.add(thing)


@atexit.register
def _close_all() -> None:
    _core.begin_exit()
    for thing in list(_open):
        thing.close()


def _after_fork() -> None:
    # The child has none of the threads. It may use the package afresh, not what it inherited.
    global _instance, _open
    _instance = None
    _open = weakref.WeakSet()


os.register_at_fork(after_in_child=_after_fork)
