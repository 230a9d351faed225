"""Peers are killed in the middle of quantized all-reduces: the survivors hold the same bits, and
those that the numpy twin gives for who contributed."""

from __future__ import annotations

import contextlib
import random
import signal

import pytest
from process import parity
from process.parity import Outcome, Plan, mode_of
from python.codecs import CODECS
from python.quantized import all_reduced

from pyccl.testing import LocalCluster, PeerProcess, PeerProcessError

# By the number of peers: how many of them die, and how many f32 an operation has, which then takes
# some milliseconds.
DYING = {3: 1, 4: 2, 8: 4}
SIZES = {3: 1 << 18, 4: 1 << 18, 8: 1 << 16}


def plan_of(codec: str, peers: int, rounds: int) -> Plan:
    """Who dies and when, by chance; of eight, two die at once."""
    chance = random.Random(f"{codec} {peers}")
    victims = chance.sample(range(peers), DYING[peers])
    # Not before all know how long an operation usually takes.
    numbers = chance.sample(range(5, rounds), len(victims))
    if peers == 8:
        numbers[1] = numbers[0]
    # A size that divides neither into blocks nor among the peers.
    size = SIZES[peers] + 13
    return Plan(codec, peers, size, rounds, dict(zip(victims, numbers, strict=True)))


def all_reports(peer: PeerProcess) -> list[Outcome]:
    """Until it has ended."""
    reports = []
    with contextlib.suppress(PeerProcessError):
        while True:
            reports.append(peer.next_report(60.0))
    return reports


def play(plan: Plan) -> dict[int, list[Outcome]]:
    """What each peer has reported, by its first rank."""
    outcomes = {}
    with LocalCluster(plan.peers, parity.reduce, (plan,)) as cluster:
        for peer in cluster.peers:
            rank = peer.next_report(60.0)
            outcomes[rank] = all_reports(peer)
            if rank in plan.deaths:
                assert peer.wait(10.0) == -signal.SIGKILL
                peer.killed = True
        cluster.results()
    for rank, mine in outcomes.items():
        assert [each.number for each in mine] == list(range(plan.deaths.get(rank, plan.rounds)))
    return outcomes


def twins_digest(plan: Plan, number: int, contributors: tuple[int, ...]) -> str:
    inputs = [parity.given(plan, number, rank) for rank in contributors]
    q, op = parity.quantization_of(plan, number, 0), parity.op_of(number)
    return parity.digest([all_reduced(list(each), q, op) for each in zip(*inputs, strict=True)])


def agreed(plan: Plan, outcomes: dict[int, list[Outcome]]) -> list[Outcome]:
    """How each operation went, which all that were there must have seen alike."""
    story = []
    for number in range(plan.rounds):
        seen = [mine[number] for mine in outcomes.values() if number < len(mine)]
        one = seen[0]
        assert {each._replace(attempts=0) for each in seen} == {one._replace(attempts=0)}, seen
        assert one.world_size == len(one.contributors)
        assert one.algorithm == ("ring" if mode_of(number) == "ring" else "direct")
        certain = {rank for rank in outcomes if plan.deaths.get(rank, plan.rounds) > number}
        dying = {rank for rank, when in plan.deaths.items() if when == number}
        assert certain <= set(one.contributors) <= certain | dying, (one, plan.deaths)
        # Who dies after its part is done may leave it to the next operation to notice.
        if not {number, number - 1} & set(plan.deaths.values()):
            assert {each.attempts for each in seen} == {1}, seen
        story.append(one._replace(attempts=max(each.attempts for each in seen)))
    return story


def check(codec: str, peers: int, rounds: int) -> None:
    plan = plan_of(codec, peers, rounds)
    story = agreed(plan, play(plan))
    for one in story:
        if mode_of(one.number) in parity.WITH_TWIN:
            assert one.digest == twins_digest(plan, one.number, one.contributors), one
    # A second run, without deaths, up to the first of them.
    calm = plan._replace(deaths={}, rounds=min(plan.deaths.values()))
    for first, second in zip(story, agreed(calm, play(calm)), strict=False):
        if mode_of(first.number) != "ring":
            assert first.digest == second.digest, (first, second)
    again = [one.number for one in story if one.attempts > 1]
    print(f"{codec}, {peers} peers: deaths {plan.deaths}, began again: {again}")


@pytest.mark.parametrize("codec", ["int8", "fp4_e3m0"])
def test_survivors_hold_the_twins_bits(codec: str) -> None:
    check(codec, 3, rounds=40)


@pytest.mark.slow
@pytest.mark.parametrize("peers", sorted(DYING))
@pytest.mark.parametrize("codec", CODECS)
def test_survivors_hold_the_twins_bits_with_all_codecs(codec: str, peers: int) -> None:
    check(codec, peers, rounds=100)
