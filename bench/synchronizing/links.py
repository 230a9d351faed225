"""A joiner that gets a state from several holders over links of known speed, in namespaces of their
own: each holder has a link to a switch, shaped both ways, and the joiner one as fast as it goes."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from namespaces import in_space, name_of, run, spaces
from rich.table import Table

import pyccl
from pyccl.testing.process import python
from synchronizing.peers import ALL, check, make, spoil, timed_sync
from synchronizing.tables import spread

_NET = "10.213.0."
_COORDINATOR = f"{_NET}100:48150"
_LIMIT_SECONDS = 300.0


class Way(NamedTuple):
    """Who may send."""

    mbit: tuple[int, ...]
    """Per second, of each holder's link."""
    senders: int
    """The first ones; the others have the state, too, but only receive."""

    @property
    def name(self) -> str:
        return "+".join(str(one) for one in self.mbit[: self.senders])

    def least_seconds(self, size: int) -> float:
        """If all links carried nothing but the state, until the last byte."""
        return size * 8 / (1e6 * sum(self.mbit[: self.senders]))


class Taken(NamedTuple):
    """One launch of fresh processes."""

    seconds: list[float]
    """At the joiner, sync by sync. Nothing is known of the links before the first one."""
    bytes: list[list[int]]
    """By holder, likewise."""


def measure(way: Way, size: int, syncs: int) -> Taken:
    """One launch. Raises NoNamespacesError where there are none."""
    joiner = len(way.mbit)
    with _network(way.mbit), tempfile.TemporaryDirectory() as folder:
        state = str(Path(folder) / "state")
        coordinator = ("coordinator", "--plain", "--bind", _COORDINATOR, "--state", state)
        processes = [in_space("switch", *python("pyccl.cli", *coordinator)[1:])]
        try:
            for index in range(joiner + 1):
                order = json.dumps([index, joiner + 1, way.senders, size, syncs])
                processes.append(in_space(index, *python("synchronizing.links", order)[1:]))
            said = [peer.communicate(timeout=_LIMIT_SECONDS)[0] for peer in processes[1:]]
        finally:
            for process in processes:
                process.kill()
                process.wait()
    if any(process.returncode != 0 for process in processes[1:]):
        raise RuntimeError("\n".join(said))
    told = [json.loads(text.splitlines()[-1]) for text in said]
    names = [one["peer"] for one in told[:joiner]]
    shares = [[sources.get(name, 0) for name in names] for sources in told[joiner]["sources"]]
    return Taken(told[joiner]["seconds"], shares)


@contextlib.contextmanager
def _network(mbit: Sequence[int]) -> Iterator[None]:
    """A namespace for each holder, for the joiner and for the switch between them."""
    switch = name_of("switch")
    first = [
        f"ip -n {switch} link add bridge type bridge",
        f"tc -n {switch} qdisc add dev bridge root tbf rate 1gbit burst 256k latency 20ms",
        f"tc -n {switch} qdisc del dev bridge root",
    ]
    with spaces((*range(len(mbit) + 1), "switch"), first):
        run(f"ip -n {switch} link set bridge up")
        run(f"ip -n {switch} addr add {_NET}100/24 dev bridge")
        for index, rate in enumerate((*mbit, 0)):
            space, port = name_of(index), f"port{index}"
            run(f"ip link add eth netns {space} type veth peer name {port} netns {switch}")
            run(f"ip -n {switch} link set {port} master bridge up")
            run(f"ip -n {space} addr add {_NET}{index + 1}/24 dev eth")
            run(f"ip -n {space} link set lo up")
            run(f"ip -n {space} link set eth up")
            if rate:
                shape = f"root tbf rate {rate}mbit burst 256k latency 20ms"
                run(f"tc -n {space} qdisc add dev eth {shape}")
                run(f"tc -n {switch} qdisc add dev {port} {shape}")
        yield


def main() -> None:
    """One peer; prints what measure() reads."""
    index, peers, senders, size, syncs = json.loads(sys.argv[1])
    joins = index == peers - 1
    told: dict[str, Any] = {"seconds": [], "sources": []}
    state = pyccl.SharedState(make(size, 1))
    made = state.digest()
    with pyccl.connect(
        _COORDINATOR, world_size_min=peers, timeout=_LIMIT_SECONDS, transport="tcp"
    ) as comm:
        told["peer"] = comm.peer
        for _ in range(syncs):
            spoil(state, ALL, lacks=joins)
            sends = index < senders or joins
            seconds, info = timed_sync(comm, state, "popular" if sends else "receive_only")
            told["seconds"].append(seconds)
            told["sources"].append({one.peer: one.bytes for one in info.sources})
        check(state, made)
    print(json.dumps(told))


def table_of(taken: dict[Way, list[Taken]], size: int) -> Table:
    """The first sync of each launch apart: it knows nothing of the links yet."""
    table = Table("holders' Mbit/s", title=f"{size >> 20} MiB to one joiner")
    columns = (
        "first, s",
        "later, s: median (min-max)",
        "at least",
        "of the links",
        "MiB by holder",
    )
    for header in columns:
        table.add_column(header, justify="right")
    for way, launches in taken.items():
        first = [one.seconds[0] for one in launches]
        later = [seconds for one in launches for seconds in one.seconds[1:]] or first
        least = way.least_seconds(size)
        share = f"{least / statistics.median(later):.0%}"
        shares = " + ".join(f"{one / 2**20:.0f}" for one in launches[-1].bytes[-1][: way.senders])
        table.add_row(way.name, spread(first), spread(later), f"{least:.2f}", share, shares)
    return table
