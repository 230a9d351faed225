"""A rank is lost in the midst of the work: the others are told who, soon, and begin anew."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from crews import Crew

WORLD = 4
# By victim: with rank 0 the coordinator is gone, too, and the others have to give it up first.
BOUND = [3.0, 2.0, 2.0, 2.0]
# By far not what it takes: that is for a machine which is busy with other things.
SECONDS = 40.0

Start = Callable[..., "Crew"]


def lose(crew: Crew, victim: int, number: signal.Signals) -> float:
    """Sends the signal in the midst of the work; returns when."""
    crew.until_told("warm", list(range(WORLD)), SECONDS)
    return crew.signal(victim, number)


def check(crew: Crew, victim: int, sent: float, bound: float) -> set[str]:
    """Within `bound` the others have raised an error that names the rank, and then they have worked
    without it. Returns the names of the errors."""
    others = [rank for rank in range(WORLD) if rank != victim]
    told = crew.until_told("lost", others, SECONDS)
    took = [one["at"] - sent for one in told]
    # For those who want to see it: pytest -s.
    print(f"rank {victim}: after {max(took):.3f} s {told[0]['text'].splitlines()[0]}")
    assert all(one["lost"] == [victim] for one in told), told
    assert all(re.search(rf"\brank {victim} lost\b", one["text"]) for one in told), told
    assert min(took) > 0
    assert max(took) < bound, took
    anew = crew.until_told("sum", others, SECONDS)
    assert all(one["size"] == WORLD - 1 for one in anew)
    assert all(one["sum"] == sum(10.0**rank for rank in others) for one in anew)
    crew.until_ended(others, SECONDS)
    return {one["kind"] for one in told}


@pytest.mark.parametrize("victim", range(WORLD))
def test_a_rank_is_killed(start: Start, victim: int) -> None:
    crew = start("losses:all_reduces", WORLD, stores=2, victim=victim)
    sent = lose(crew, victim, signal.SIGKILL)
    assert check(crew, victim, sent, BOUND[victim]) == {"PeerLostError"}


# DDP is C++, and there all errors of Python are of one kind.
@pytest.mark.parametrize(("job", "kind"), [("ddp", "RuntimeError"), ("fsdp", "PeerLostError")])
@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_rank_is_killed_in_training(start: Start, job: str, kind: str, victim: int) -> None:
    crew = start(f"losses:{job}", WORLD, stores=2, victim=victim)
    sent = lose(crew, victim, signal.SIGKILL)
    assert check(crew, victim, sent, BOUND[victim]) == {kind}


def test_a_rank_is_stopped(start: Start) -> None:
    """In one crew rank 2, in another rank 0, at the same time: most of it is waiting."""
    # 4 s of silence, and with rank 0 another 2 s until the coordinator is given up.
    bounds = {2: 5.5, 0: 7.0}
    crews, sent = {}, {}
    for victim in bounds:
        crews[victim] = start("losses:all_reduces", WORLD, stores=2, victim=victim)
        sent[victim] = lose(crews[victim], victim, signal.SIGSTOP)
    for victim, bound in bounds.items():
        check(crews[victim], victim, sent[victim], bound)
        # Continued, it is told that it is apart from the others, and does not hang.
        crews[victim].signal(victim, signal.SIGCONT)
        crews[victim].until_told("lost", [victim], SECONDS)
        crews[victim].until_ended([victim], SECONDS)


def test_a_rank_ends_without_a_word(start: Start) -> None:
    """Its coordinator stays for those who are still at it."""
    crew = start("losses:without_farewell", WORLD)
    found = crew.until_told("left", list(range(1, WORLD)), SECONDS)
    assert all(0 < one["left"] < WORLD for one in found)
    crew.until_ended(list(range(WORLD)), SECONDS)
