"""Peers that are started here, for a run on one machine: none outlives it, however it ends."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator, Mapping
from typing import Any

from pyccl.cli.bench.measure import GroupChangedError, Line, Plan, run_peer
from pyccl.cli.bench.moved import Moved, Tell
from pyccl.errors import (
    CancelledError,
    ClosedError,
    EvictedError,
    OperationTimeout,
    PeerLostError,
    PycclError,
)
from pyccl.testing import LocalCluster, PeerProcess, PeerProcessError

_CONSEQUENCES = (
    CancelledError, ClosedError, EvictedError, GroupChangedError, OperationTimeout, PeerLostError
)  # fmt: skip
_LOOK_SECONDS = 0.5
_SETTLE_SECONDS = 3.0


class LocalRunError(Exception):
    """A peer failed; the text says which and why."""


def run_local(
    peers: int,
    plan: Plan,
    connect: Mapping[str, Any],
    tell: Tell = None,
) -> Generator[Line, None, None]:
    """Starts a coordinator and peers, and gives the lines as they are measured. Closing it ends
    them all."""
    count = len(plan.steps(peers))
    arguments = (plan, tell is not None)
    try:
        with LocalCluster(peers, run_peer, arguments, connect=connect) as cluster:
            for _ in range(count):
                yield _next_line(cluster, tell)
            _await_ends(cluster)
    except RuntimeError as error:  # the coordinator did not start
        raise LocalRunError(str(error)) from error


def _next_line(cluster: LocalCluster, tell: Tell) -> Line:
    """Waits as long as all peers live: each of their operations has a deadline of its own."""
    while True:
        try:
            said = cluster.peers[0].next_report(_LOOK_SECONDS)
        except TimeoutError:
            _fail_if_any(cluster)
        except PeerProcessError:
            raise LocalRunError(_why(cluster)) from None
        else:
            if isinstance(said, Line):
                return said
            assert isinstance(said, Moved)
            assert tell is not None
            tell(said)


def _await_ends(cluster: LocalCluster) -> None:
    while any(peer.alive() for peer in cluster.peers):
        for peer in cluster.peers:
            try:
                peer.wait(_LOOK_SECONDS)
            except TimeoutError:
                break
        _fail_if_any(cluster)
    _fail_if_any(cluster)


def _fail_if_any(cluster: LocalCluster) -> None:
    if any(not peer.alive() and peer.wait() != 0 for peer in cluster.peers):
        raise LocalRunError(_why(cluster))


def _why(cluster: LocalCluster) -> str:
    """The cause rather than what the other peers made of it: when a peer fails, they see a death.
    They are given a moment to end."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    reasons = []
    for peer in cluster.peers:
        try:
            status = peer.wait(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            continue
        if status != 0:
            reasons.append(_reason(peer, status))
    return min(reasons)[1] if reasons else "the peers gave no result"


def _reason(peer: PeerProcess, status: int) -> tuple[int, str]:
    """What a peer ended by, and before which others it counts: less comes first."""
    name = f"peer {peer.index}"
    if status < 0:
        return 0, f"{name} was ended by {signal.Signals(-status).name}"
    try:
        error = peer.exception(_SETTLE_SECONDS)
        if isinstance(error, PycclError):
            is_consequence = isinstance(error, _CONSEQUENCES)
            return 2 if is_consequence else 1, f"{name}: {type(error).__name__}: {error}"
        peer.result(_SETTLE_SECONDS)
    except (PeerProcessError, TimeoutError) as whole:
        return 1, str(whole)
    return 1, f"{name} ended with status {status}"
