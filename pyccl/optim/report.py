"""What an outer step tells: whether it happened, with whom, and what it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from pyccl.diagnostics import Consistency
from pyccl.shared_state import Behind


class Share(NamedTuple):
    """What became of this peer's delta of a module, in an outer step of EDiT."""

    module: str
    norm: float
    outlier: bool
    """It was out of this peer's ordinary, or not finite, and counted nothing."""
    weight: float
    """Its part of the mean, 0 to 1; 0 also where nobody counted and the module was left alone."""


@dataclass
class SyncReport:
    """How the last outer step went. The same on all peers, but for attempts, bytes, seconds and
    shares; of NoLoCo each peer has its own."""

    fresh: bool = False
    """It was in the last call of step(), sync() or end_window()."""
    applied: bool = False
    """False: nothing has changed, and what was learned here goes into the next one."""
    reason: str = ""
    """Why it was not applied; of NoLoCo also why it was without a partner, or
    without the boundary that was due."""
    step: int = 0
    """Outer steps done, with this one."""
    fragment: int | None = None
    """Of which fragment of the parameters it was; None: of all of them."""
    contributors: int = 0
    """Peers whose deltas are in the mean."""
    members: int = 0
    """Peers that took part, also those without a contribution."""
    weight_sum: float = 0.0
    """What the sum was divided by."""
    attempts: int = 0
    """1, and one more for each time that it began again because a peer was lost."""
    bytes_sent: int = 0
    bytes_received: int = 0
    seconds: float = 0.0
    """Of the whole outer step."""
    hash: str = ""
    """32 hex digits of the state that all peers hold now; empty without a communicator, and where
    they were not compared."""
    distance: float | None = None
    """Of NoLoCo, how far the peers that met are apart; see NoLoCoState.distance()."""
    consistency: Consistency | None = None
    """How alike the peers have trained, if that was asked for."""
    shares: tuple[Share, ...] = field(default=())
    """By module, of EDiT; empty where nothing was applied."""
    behind: tuple[Behind, ...] = field(default=())
    """Who had another state and got this one: newcomers, and peers whose memory had changed."""
