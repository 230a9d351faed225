"""The order of operations that callbacks of futures begin.

All ranks must begin the operations of a group in one order. A callback runs when its operation has
ended, on whichever thread learns of that, so what it begins comes between the calls of other
threads elsewhere on each rank: torch's PowerSGD hook would add up parts of different buckets. Here
such operations are matched by the one whose callback begins them, beside the order of plain calls.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import torch

from pyccl.torch.tags import CALLBACKS, CALLBACKS_COUNT


class Chain:
    """What the callbacks of one operation begin in its group, and those of what they begin: matched
    in their own order. In other groups they come in the order of plain calls, for nobody knows what
    their ranks call this operation."""

    def __init__(self, group: object, position: int) -> None:
        self.group = group
        # A run has a limited number of tags, so they are used again: by an operation that is called
        # so much later that the earlier one's callbacks have run.
        self.tag = CALLBACKS + position % CALLBACKS_COUNT


_here = threading.local()
_chains: weakref.WeakKeyDictionary[Any, Chain] = weakref.WeakKeyDictionary()


def current() -> Chain | None:
    """That of the callback in which the caller is, if it is in one."""
    return getattr(_here, "chain", None)


def follow(future: torch.futures.Future[Any], chain: Chain) -> None:
    """From now on callbacks of the future, and of those that come of it, belong to the chain."""
    _chains[future] = chain


def _chain_of(future: Any) -> Chain | None:
    # Within a callback, also that of a future of others: it may have ended or not when its own
    # callback is given to it, and that must not decide.
    return _chains.get(future) or current()


def _within(chain: Chain, callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(callback, updated=())
    def run(future: Any) -> Any:
        outer = current()
        _here.chain = chain
        try:
            return callback(future)
        finally:
            _here.chain = outer

    return run


def teach_futures() -> None:
    """Has the futures of torch keep to chains. What then() gives is of a class of C++, so it can't
    be done by a class of our own; outside of callbacks, futures of others are left as they are."""
    torchs: Any = torch._C.Future
    torchs_then, torchs_add = torchs.then, torchs.add_done_callback

    @functools.wraps(torchs_then)
    def then(self: Any, callback: Callable[[Any], Any]) -> Any:
        chain = _chain_of(self)
        if chain is None:
            return torchs_then(self, callback)
        made = torchs_then(self, _within(chain, callback))
        follow(made, chain)
        return made

    @functools.wraps(torchs_add)
    def add_done_callback(self: Any, callback: Callable[[Any], Any]) -> None:
        chain = _chain_of(self)
        torchs_add(self, callback if chain is None else _within(chain, callback))

    torchs.then, torchs.add_done_callback = then, add_done_callback
