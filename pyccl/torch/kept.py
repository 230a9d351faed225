"""Works of which C++ may still ask, where torch does not see to it that they live (before 2.7): C++
would wait in its own half of them, and for ever."""

from __future__ import annotations

import threading
from typing import Any

import torch

_NEEDED = tuple(int(one) for one in torch.__version__.split(".")[:2]) < (2, 7)
# Those that are waited for less often keep their tensors: of no more than these.
_MOST = 32

_works: dict[int, tuple[Any, int]] = {}
_lock = threading.Lock()


def keep(work: Any, waits: int) -> None:
    """Until it has been waited for so many times, once for each of its tensors maybe, or asked for
    its future."""
    if not _NEEDED:
        return
    with _lock:
        _works[id(work)] = work, waits
        if len(_works) > _MOST:
            del _works[next(iter(_works))]


def waited(work: Any) -> None:
    if not _NEEDED:
        return
    with _lock:
        _, left = _works.pop(id(work), (None, 0))
        if left > 1:
            _works[id(work)] = work, left - 1


def let_go(work: Any) -> None:
    if _NEEDED:
        with _lock:
            _works.pop(id(work), None)
