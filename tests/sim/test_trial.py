"""Operations over simulated links of known latency and rate: what the hops and bytes of a plan
cost, and which plan is chosen once the links have been seen."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from sim.simulator import Simulate

MIB = 1 << 20


class Round(NamedTuple):
    algorithm: str
    sending: float
    """Milliseconds that the bytes of the busiest peer take on its link."""
    whole: float
    """Until every result was there."""
    whole_delays: float
    """The same beyond `sending`, in one-way latencies."""
    ended: float
    """Until every call had ended."""
    ended_delays: float


def trial(simulate: Simulate, **options: object) -> list[Round]:
    arguments = [
        text
        for name, value in options.items()
        for text in ("--" + name.replace("_", "-"), str(value))
    ]
    result = simulate("trial", *arguments)
    assert result.returncode == 0, result.stdout
    rows = [line.split() for line in result.stdout.splitlines()[1:]]
    return [Round(row[0], *map(float, row[1:])) for row in rows]


WAN = {"peers": 16, "latency_ms": 50, "mb_per_s": 125, "bytes": MIB}
LAN = {"peers": 16, "latency_ms": 0.1, "mb_per_s": 1200, "bytes": 4 * MIB}


def test_direct_takes_two_hops(simulate: Simulate) -> None:
    for one in trial(simulate, **WAN, algorithm="direct"):
        assert one.algorithm == "direct"
        assert 2.0 <= one.whole_delays <= 2.5
        # Agreement that all have the result takes a hop of its own.
        assert 3.0 <= one.ended_delays <= 3.5


def test_the_ring_takes_a_hop_for_each_step(simulate: Simulate) -> None:
    hops = 2 * (16 - 1)
    for one in trial(simulate, **WAN, algorithm="ring"):
        assert hops <= one.whole_delays <= hops + 0.5


@pytest.mark.parametrize("latency", [5, 50, 150])
def test_far_peers_choose_direct(simulate: Simulate, latency: int) -> None:
    for one in trial(simulate, **WAN | {"latency_ms": latency}):
        assert one.algorithm == "direct"


def test_a_lan_chooses_direct(simulate: Simulate) -> None:
    for one in trial(simulate, **LAN):
        assert one.algorithm == "direct"


@pytest.mark.parametrize("peers", [5, 16])
@pytest.mark.parametrize("pair", ["0:1", "3:4", "1:3"])
def test_a_lan_with_one_slow_link_goes_round_it(simulate: Simulate, pair: str, peers: int) -> None:
    options = LAN | {"peers": peers, "slow": f"{pair}:12", "rounds": 3}
    first, second, third = trial(simulate, **options)
    # Nobody knows it before there was traffic; then the ring leaves it out.
    assert first.algorithm == "direct"
    assert second.algorithm == third.algorithm == "ring"
    assert second.ended < first.ended / 2


@pytest.mark.parametrize("algorithm", ["recursive_doubling", "halving_doubling", "one_shot"])
def test_hops_of_the_others(simulate: Simulate, algorithm: str) -> None:
    hops = {"one_shot": 1, "recursive_doubling": 4, "halving_doubling": 8}[algorithm]
    for one in trial(simulate, **WAN | {"bytes": 64 << 10}, algorithm=algorithm):
        assert hops <= one.whole_delays <= hops + 0.5


@pytest.mark.parametrize(
    ("kind", "algorithm", "hops"),
    [
        ("reduce_scatter", "direct", 1),
        ("reduce_scatter", "ring", 15),
        ("all_gather", "direct", 1),
        ("all_gather", "ring", 15),
        ("all_to_all", "auto", 1),
        ("broadcast", "direct", 1),
        ("broadcast", "binomial", 4),
        ("broadcast", "chain", 15),
        ("reduce", "binomial", 4),
        ("gather", "auto", 1),
        ("scatter", "auto", 1),
    ],
)
def test_hops_of_other_collectives(
    simulate: Simulate, kind: str, algorithm: str, hops: int
) -> None:
    options = WAN | {"bytes": 16 << 10, "kind": kind, "algorithm": algorithm, "rounds": 1}
    (one,) = trial(simulate, **options)
    assert hops + 1 <= one.ended_delays <= hops + 1.5


def test_a_pair_takes_as_long_among_many(simulate: Simulate) -> None:
    """What NoLoCo's outer step does; a ring of all takes two hops more for each peer."""
    pairs = [
        trial(simulate, **WAN | {"peers": peers, "rounds": 1}, kind="exchange")[0]
        for peers in (2, 4, 8, 16, 32)
    ]
    for one in pairs:
        assert one.ended == pytest.approx(pairs[0].ended, rel=0.01)
        assert 1.0 <= one.whole_delays <= 1.5
    (ring,) = trial(simulate, **WAN | {"peers": 8, "rounds": 1}, algorithm="ring")
    assert ring.ended > 6 * pairs[-1].ended


def test_wrong_trials(simulate: Simulate) -> None:
    for arguments in (
        ["--peers", "0"], ["--peers", "65"], ["--bytes"], ["--bytes", "x"], ["--nonsense", "1"],
        ["--algorithm", "chain"], ["--kind", "nothing"], ["--slow", "1:1:5"], ["--slow", "0:16:5"],
        ["--kind", "exchange", "--peers", "3"], ["--kind", "send"],
    ):  # fmt: skip
        assert simulate("trial", *arguments).returncode == 2
    assert "usage" in simulate("trial", "--help").stdout
