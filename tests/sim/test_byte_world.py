"""The byte world: the whole engine over simulated streams, bits compared, memory watched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from sim.simulator import Result, Simulate, faults, hunts, marks, sites, sweep

LAYERS = ("engine", "transport")
MUTANTS = {
    "dropped-message",
    "dropped-retransmission",
    "duplicate-segment",
    "forget-epoch-on-data",
    "links-of-a-former-view",
    "no-restore-on-retry",
    "owner-keeps-its-sum",
    "redirect-ignored",
    "slot-leak",
    "stash-kept-over-views",
    "weights-not-awaited",
}
# Peers that keep to the rules never get there; tests/engine/executor_test.cpp does.
ONLY_BY_FOUL_PLAY = {"early data beyond the budget"}


@pytest.fixture(scope="module")
def swept(simulate: Simulate, seeds: int) -> list[Result]:
    """Some of the marks are rare."""
    return sweep(simulate, max(seeds, 400), "--world", "byte")


@pytest.fixture(scope="module")
def hunted(simulate: Simulate) -> Iterator[dict[str, Future[Result]]]:
    with hunts(simulate, MUTANTS, "--world", "byte", "--seeds", "0:2000") as found:
        yield found


def test_seeds(swept: list[Result]) -> None:
    repeat = "repeat one with: pyccl_sim --world byte --seeds N:N+1 --trace"
    assert not faults(swept), faults(swept) + repeat


def test_a_seed_is_a_run(simulate: Simulate) -> None:
    first, second = (simulate("--world", "byte", "--seeds", "0:30", "--verbose") for _ in range(2))
    assert first.stdout == second.stdout
    hashes = set(re.findall(r"hash (\w+)", first.stdout))
    assert len(hashes) == 30


def test_all_planted_bugs_are_tried() -> None:
    assert sites("PYCCL_MUTANT", *LAYERS) == MUTANTS


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_planted_bug_is_found(hunted: dict[str, Future[Result]], mutant: str) -> None:
    result = hunted[mutant].result()
    assert result.returncode == 1, f"{mutant} was not found"
    assert result.stdout.startswith("seed "), result.stdout


def test_every_mark_is_hit(swept: list[Result]) -> None:
    assert sites("PYCCL_MARK", *LAYERS) - marks(*swept) == ONLY_BY_FOUL_PLAY
