"""An outer step as a transaction among the members of a communicator.

One atomic all-reduce brings the mean and its divisor, of one set of contributors, to all or to
none. Each peer applies the same bytes. Then a sync admits newcomers, gives them the state behind
this step, and proves that all others hold the same: so a newcomer trains its first window along
with everybody, and there is no time at which it would have half of one to contribute. Who trains
meanwhile leaves the sync out where nobody waits to be admitted, and compares digests instead, of
which the result may come later.

A step that does not come about changes nothing, and takes nothing from what was learned here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import numbers
import time
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np

from pyccl.communicator import Communicator
from pyccl.error_feedback import Compensated, ErrorFeedback
from pyccl.errors import (
    CancelledError,
    InvalidArgumentError,
    OperationTimeout,
    PeerLostError,
    PycclError,
    StateSyncError,
)
from pyccl.optim.comparison import Comparison
from pyccl.optim.layout import F32
from pyccl.optim.outer import OuterState
from pyccl.optim.report import SyncReport
from pyccl.options import integer
from pyccl.options import seconds as seconds_of
from pyccl.quantization import Codec, Quantization
from pyccl.work import OperationInfo, Work

logger = logging.getLogger("pyccl.optim")

# With these no peer has got the mean, and all may try again.
ABORTS = (CancelledError, OperationTimeout, PeerLostError)
_WHOLE = slice(None)

Agree = Literal["now", "later", "never"]


class Exchange(TypedDict, total=False):
    """How deltas are exchanged, as DiLoCo takes it."""

    quantization: Quantization | Codec | None
    error_feedback: bool
    min_peers: int
    timeout: float | None


def communicator(comm: object) -> Communicator | None:
    """Raises InvalidArgumentError for what is no Communicator."""
    if comm is not None and not isinstance(comm, Communicator):
        raise InvalidArgumentError(
            f"comm is of type {type(comm).__name__}, but must be a Communicator or None"
        )
    return comm


def alike(
    quantization: Quantization | Codec | None, min_peers: int, diagnostics: bool = False
) -> list[str]:
    """What all peers must give alike, for OuterState: what an operation compares, who applies its
    result, and whether there is one more. Raises InvalidArgumentError and InvalidTypeError."""
    given = Quantization.of(quantization)
    wire = given and (given.codec, given.block, given.scale, given.partial)
    return [
        f"quantization={wire}", f"min_peers={min_peers}", f"diagnostics={bool(diagnostics)}",
    ]  # fmt: skip


class Pending(NamedTuple):
    """An outer step under way."""

    began: float
    values: F32 | None
    """What becomes the mean, or the sum; None: it has failed as it began."""
    weight: float
    work: Work[Any] | None
    compensated: Compensated | None
    report: SyncReport


class Rounds:
    """The outer steps of one peer.

    comm: None: alone, with the outer optimizer all the same.
    quantization: deltas travel in fewer bits.
    error_feedback: what that takes from a delta is added to the next one, and given back by a step
        that does not come about.
    peers_min: with fewer members nothing is applied. Not asked for without a communicator.
    timeout: seconds for each operation; None: those of the communicator.
    compares: finish() may be asked to leave syncs out; the same on all peers.
    """

    def __init__(
        self,
        state: OuterState,
        comm: Communicator | None,
        *,
        quantization: Quantization | Codec | None = None,
        error_feedback: bool = False,
        peers_min: int = 1,
        timeout: float | None = None,
        compares: bool = False,
    ) -> None:
        self._state = state
        self._comm = communicator(comm)
        self._quantization = Quantization.of(quantization)
        if error_feedback and self._quantization is None:
            raise InvalidArgumentError("error_feedback is of quantized deltas: say how they are")
        self.residuals: dict[int, ErrorFeedback] | None = {} if error_feedback else None
        """By fragment; None: there is no error feedback."""
        self._peers_min = integer(peers_min, "min_peers", 1, 1 << 16)
        self._timeout = None if timeout is None else seconds_of(timeout, "timeout")
        self._comparison = (
            None if self._comm is None else Comparison(state, self._comm, self._timeout)
        )
        self._compares = compares
        self._awaited = False  # somebody waits to be admitted, as the last mean has told

    @property
    def comm(self) -> Communicator | None:
        return self._comm

    def feedback(self, fragment: int = 0) -> ErrorFeedback | None:
        """That of a fragment, if there is any."""
        if self.residuals is None:
            return None
        if fragment not in self.residuals:
            assert self._quantization is not None
            self.residuals[fragment] = ErrorFeedback(self._quantization)
        return self.residuals[fragment]

    def join(self) -> SyncReport:
        """Before the first window, and wherever states may differ: all peers call it and get one
        state, the one of the most outer steps."""
        report = SyncReport(fresh=True, step=self._state.step)
        if self._comm is not None and self._comparison is not None:
            self._comparison.differs()  # the sync asks anew
            self._agree(self._comm, report, strict=True)
        return report

    def run(self, delta: F32, weight: float = 1.0) -> SyncReport:
        """One outer step with this peer's delta, which is overwritten. All peers call it.

        weight: what the delta counts in the mean. One with a NaN or an infinity in it counts
            nothing, whatever its weight.

        Raises the errors of a communicator that is at its end, and those of wrong arguments.
        """
        return self.finish(self.begin(delta, weight))

    def begin(self, delta: F32, weight: float = 1.0, fragment: int | None = None) -> Pending:
        """The first half of run(): the delta belongs to it until finish() has returned."""
        began = time.monotonic()
        if not isinstance(weight, numbers.Real) or not 0 <= float(weight) < math.inf:
            # Before anybody waits for this peer.
            raise InvalidArgumentError(
                f"weight is {weight!r}, but must be a number from 0: what the delta of this peer "
                "counts in the mean"
            )
        report = SyncReport(fresh=True, step=self._state.step, fragment=fragment)
        if not np.isfinite(delta).all():
            delta[...], weight = 0.0, 0.0
            report.reason = "this peer's delta is not finite"
        if self._comm is None:
            return Pending(began, delta, weight, None, None, report)
        feedback = self.feedback(fragment or 0)
        step = None if feedback is None else feedback.begin(delta)
        values = delta if step is None else step.values
        try:
            work = self._comm.all_reduce(
                values,
                op=self._state.op,
                weight=weight,
                quantization=self._quantization if step is None else step.quantization,
                timeout=self._timeout,
                async_op=True,
            )
        except ABORTS as error:
            report.reason = str(error)
            return Pending(began, None, weight, None, None, report)
        return Pending(began, values, weight, work, step, report)

    def settle(self, pending: Pending) -> None:
        """Waits until finish() will not have to, for the mean. An interrupt leaves all as it was,
        so that the caller may come again."""
        if self._comparison is not None:
            self._comparison.wait()
        if pending.work is not None:
            with contextlib.suppress(PycclError):
                pending.work.wait()

    def finish(self, pending: Pending, part: slice = _WHOLE, agree: Agree = "now") -> SyncReport:
        """The second half of run(): waits, applies the mean, and syncs.

        part: the elements of the state that the delta was of.
        agree: "later": the sync is left out and digests are compared, unless nothing was applied,
            or somebody waits to be admitted, or the last comparison has found a difference, of
            which all peers of the group know alike. "never": they are not compared either. Where
            the run has other groups, which know of other things, "later" is "now".
        """
        report = pending.report
        differs = self._comparison is not None and self._comparison.differs()
        mean = self._mean(pending)
        if mean is not None:
            self._state.apply(mean, part)
            report.applied, report.reason, report.step = True, "", self._state.step
        if self._comm is not None and self._comparison is not None:
            alone = self._comparison.alone
            due = agree == "now" or mean is None or (agree == "later" and not alone)
            if due or (alone and (differs or self._awaited)):
                self._agree(self._comm, report, strict=False)
            elif agree == "later":
                report.hash = self._comparison.begin()
        report.seconds = time.monotonic() - pending.began
        return report

    def _mean(self, pending: Pending) -> F32 | None:
        """None: there is none, or it must not be applied."""
        report, weight = pending.report, pending.weight
        self._awaited = False
        if pending.values is None:
            return None
        if pending.work is None:
            report.members = report.contributors = report.attempts = int(weight > 0)
            report.weight_sum = weight
            report.reason = report.reason or ("" if weight > 0 else "nobody has contributed")
            if self._state.op == "sum":
                np.multiply(pending.values, np.float32(weight), out=pending.values)
            return pending.values if weight > 0 else None
        try:
            info: OperationInfo = pending.work.wait()
        except ABORTS as error:
            report.reason = str(error)
            return None
        except InvalidArgumentError as error:
            # If nobody has anything to contribute, all are told so.
            if weight > 0:
                raise
            report.reason = str(error)
            return None
        self._note(info, report)
        self._awaited = info.peers_pending
        if info.members < self._peers_min:
            report.reason = f"there are {info.members} peers of the {self._peers_min} asked for"
            return None
        if pending.compensated is not None and weight > 0:
            pending.compensated.commit(info)
        return pending.values

    def _agree(self, comm: Communicator, report: SyncReport, strict: bool) -> None:
        try:
            found = comm.sync(self._state.shared, timeout=self._timeout)
        except (*ABORTS, StateSyncError):
            if strict:
                raise
            if self._comparison is not None:
                self._comparison.suspect()
            return  # the next one finds what this one would have
        report.hash, report.behind = found.digest, found.behind
        if self._compares and self._comparison is not None:
            self._comparison.survey()
        for one in found.behind:
            # At the start of a run all come with numbers of their own.
            if one.drifted and one.revision > 0:
                logger.warning(
                    "peer %s (rank %s) held other bits of outer step %d than the others, and has "
                    "theirs now: its memory has changed by itself, or by its program",
                    one.peer, one.rank, one.revision,
                )  # fmt: skip
        report.step = self._state.step

    @staticmethod
    def _note(info: OperationInfo, report: SyncReport) -> None:
        report.contributors, report.members = info.world_size, info.members
        report.weight_sum, report.attempts = info.weight_sum, info.attempts
        report.bytes_sent, report.bytes_received = info.bytes_sent, info.bytes_received
