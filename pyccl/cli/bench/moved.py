"""How far a sync is that takes long, for whoever looks on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

_QUIET_SECONDS = 1.0
_PAUSE_SECONDS = 0.5


class Moved(NamedTuple):
    """Bytes between all peers."""

    bytes: int
    of: int


Tell = Callable[[Moved], object] | None
"""What is told of it; None: nobody looks."""


class Watch:
    """Hands on what a sync says of its progress: nothing in its first second, then twice a second.
    Who looks on shares the processors with what is measured."""

    def __init__(self, tell: Callable[[Moved], object]) -> None:
        self._tell = tell
        self._next = 0.0

    def begin(self) -> None:
        self._next = time.monotonic() + _QUIET_SECONDS

    def __call__(self, moved: int, to_move: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE_SECONDS
            self._tell(Moved(moved, to_move))
