"""The state world: machines that sync tensors, over operations that keep contract C1 only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future

import pytest
from sim.simulator import Result, Simulate, faults, hunts, marks, state_sites, sweep

MUTANTS = {
    "any-table-believed",
    "anybody-sends",
    "complaints-ignored",
    "own-rates-only",
    "own-state-wins",
    "revision-before-its-bits",
    "send-only-is-overwritten",
    "staged-blocks-written",
    "staged-for-another-election",
    "stops-posting-at-a-loss",
    "unverified-blocks",
    "void-state-elected",
}
SEEDS_PER_SEED = 10  # one takes a thirtieth of the time of one of the other worlds


@pytest.fixture(scope="module")
def swept(simulate: Simulate, seeds: int) -> list[Result]:
    return sweep(simulate, max(seeds * SEEDS_PER_SEED, 2000), "--world", "state")


@pytest.fixture(scope="module")
def hunted(simulate: Simulate) -> Iterator[dict[str, Future[Result]]]:
    with hunts(simulate, MUTANTS, "--world", "state", "--seeds", "0:10000") as found:
        yield found


def test_seeds(swept: list[Result]) -> None:
    repeat = "repeat one with: pyccl_sim --world state --seeds N:N+1 --trace"
    assert not faults(swept), faults(swept) + repeat


def test_a_seed_is_a_run(simulate: Simulate) -> None:
    first, second = (
        simulate("--world", "state", "--seeds", "0:200", "--verbose") for _ in range(2)
    )
    assert first.stdout == second.stdout
    hashes = set(re.findall(r"hash (\w+)", first.stdout))
    assert len(hashes) == 200


def test_all_planted_bugs_are_tried() -> None:
    assert state_sites("PYCCL_MUTANT") == MUTANTS


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_planted_bug_is_found(hunted: dict[str, Future[Result]], mutant: str) -> None:
    result = hunted[mutant].result()
    assert result.returncode == 1, f"{mutant} was not found"
    assert result.stdout.startswith("seed "), result.stdout


def test_every_mark_is_hit(swept: list[Result]) -> None:
    assert state_sites("PYCCL_MARK") - marks(*swept) == set()
