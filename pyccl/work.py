"""What an operation comes back with, and the handle of one that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from pyccl import _core, _events
from pyccl.errors import InvalidTypeError, OperationTimeout, PycclError, from_status


class Epoch(NamedTuple):
    """The number of a view. Only rises: first by the coordinator's incarnation, then by count."""

    incarnation: int
    counter: int

    def __str__(self) -> str:
        return f"{self.incarnation}.{self.counter}"


class OperationInfo(NamedTuple):
    """How an operation went. The same on all members, except attempts, bytes, seconds, source."""

    world_size: int
    """Contributors to the result: members with a weight above 0."""
    members: int
    """Members of the group in the view that committed the operation."""
    epoch: Epoch
    """The view that committed it."""
    attempts: int
    """1, and one more for each time that it began again here because a peer was lost."""
    bytes_sent: int
    """Payload that the last attempt sent from here."""
    bytes_received: int
    seconds: float
    """From the call to its end."""
    algorithm: str
    weight_sum: float
    """Of the contributors; what `avg` divided by."""
    peers_pending: bool
    """Joiners waited when the operation was committed; see Communicator.peers_pending."""
    wire_ratio: float = 1.0
    """`bytes_sent`, to what it would have been without quantization; else 1."""
    bytes_packed: int = 0
    """What of `bytes_sent` zstd has compressed; 0 where that did not pay."""
    quantization_step: float = 0.0
    """The largest distance of neighbouring values in the quantized blocks that this peer has made
    or read; else 0."""
    source: int | None = None
    """Of recv(): the sender's rank when it was called, in the group or in the subgroup; else None.
    """


if TYPE_CHECKING:
    # Known to type checkers even where it is not installed.
    from typing_extensions import TypeVar

    Given = TypeVar("Given", default=OperationInfo)
else:
    from typing import TypeVar

    Given = TypeVar("Given")


class HintKeeper:
    """Where the hint of the last operation goes that was waited for."""

    __slots__ = ("pending",)

    def __init__(self) -> None:
        self.pending = False


class Work(Generic[Given]):
    """An operation under way. May be waited for, asked, awaited, or dropped.

    It gives what the blocking call would have given: an array, or how the operation went. The
    arrays belong to the operation until it has ended, also if the Work is dropped.
    """

    __slots__ = ("_core", "_counted", "_ended", "_give", "_hints")

    def __init__(
        self,
        core: _core.Work,
        hints: HintKeeper | None,
        give: Callable[[OperationInfo], Any] | None = None,
    ) -> None:
        self._core = core
        self._hints = hints
        self._counted = hints is None
        self._give = give
        self._ended: OperationInfo | PycclError | None = None

    def wait(self, timeout: float | None = None) -> Given:
        """Blocks until the operation has ended; what it gives, or its error.

        Raises OperationTimeout if that takes longer than `timeout` seconds: then the operation goes
        on, and so it does after Ctrl-C. (Its own deadline is the `timeout` that it began with.)
        """
        if not self._core.wait(-1.0 if timeout is None else max(0.0, timeout)):
            raise OperationTimeout(f"still under way after {timeout} s; the operation goes on")
        return self.result()

    def done(self) -> bool:
        """True once the operation has ended, in one way or the other. Never blocks."""
        return self._core.done()

    def exception(self) -> PycclError | None:
        """The error of an operation that has failed, else None. Never blocks."""
        outcome = self._outcome()
        return outcome if isinstance(outcome, PycclError) else None

    def result(self) -> Given:
        """What the operation gives, or its error. Never blocks: raises OperationTimeout if it has
        not ended."""
        info = self.info()
        if not self._counted and self._hints is not None:
            # The hint becomes visible here and nowhere else, so that it changes at the same place
            # of the program on all members.
            self._counted = True
            self._hints.pending = info.peers_pending
        return info if self._give is None else self._give(info)  # type: ignore[return-value]

    def info(self) -> OperationInfo:
        """How the operation went, or its error. Never blocks: raises OperationTimeout if it has
        not ended."""
        outcome = self._outcome()
        if isinstance(outcome, PycclError):
            raise outcome
        return outcome

    def add_done_callback(self, callback: Callable[[Work[Given]], object]) -> None:
        """Has `callback(work)` called once when the operation has ended, on a thread of the
        package; it should be brief. What it raises is logged."""
        if not callable(callback):
            raise InvalidTypeError("the callback can't be called")
        _events.watch(self._core, lambda: callback(self))

    def __await__(self) -> Generator[object, None, Given]:
        if not self._core.done():
            loop = asyncio.get_running_loop()
            ended = loop.create_future()

            def set_ended() -> None:
                if not ended.done():
                    ended.set_result(None)

            def wake() -> None:
                # A loop that was closed meanwhile has nobody left who waits.
                if not loop.is_closed():
                    loop.call_soon_threadsafe(set_ended)

            _events.watch(self._core, wake)
            yield from ended
        self._core.wait(0.0)
        return self.result()

    def __repr__(self) -> str:
        if not self.done():
            return "<pyccl.Work under way>"
        return f"<pyccl.Work {self._outcome()!r}>"

    def _outcome(self) -> OperationInfo | PycclError:
        if self._ended is None:
            outcome = self._core.outcome()
            if outcome is None:
                raise OperationTimeout("the operation has not ended yet")
            failure, (world_size, members, epoch, *others) = outcome
            if failure is None:
                # As their own constructors would do it, in half the time: small operations count
                # in microseconds.
                self._ended = _new(
                    OperationInfo, (world_size, members, _new(Epoch, epoch), *others)
                )
            else:
                self._ended = from_status(*failure)
        return self._ended


_new = tuple.__new__
