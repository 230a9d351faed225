"""The protocol world: real coordinator and members, a virtual clock, a bad network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from sim.simulator import ROOT, Result, Simulate, faults, hunts, marks, sites, sweep

# Each is one of the flaws that the model of the protocol has, or one that is easily made.
MUTANTS = {
    "amounts-not-compared",
    "certain-waits",
    "commit-after-first-done",
    "commit-by-majority",
    "decisions-of-subgroups-lost",
    "done-while-frozen",
    "epoch-counter-only",
    "failure-of-unknown-subgroup",
    "freeze-ignored-by-late-operation",
    "give-up-final",
    "hint-of-a-subgroup",
    "hint-of-decision",
    "joiner-inside-operation",
    "late-root-ignored",
    "links-not-handed-on",
    "live-pending",
    "lost-report-when-two-die",
    "own-heartbeat-limit",
    "own-hint-only",
    "register-as-report",
    "sequence-shared-between-tags",
    "stale-coordinator-messages",
    "stale-decision-after-restart",
    "subgroup-outlives-its-member",
    "update-counts-across-views",
    "withdrawn-call-makes-due",
    "wrong-contributor-count",
}
SCENARIOS = sorted((ROOT / "tests" / "scenarios").glob("*.txt"))


@pytest.fixture(scope="module")
def swept(simulate: Simulate, seeds: int) -> list[Result]:
    """Some of the marks are rare."""
    return sweep(simulate, max(seeds, 1500))


@pytest.fixture(scope="module")
def hunted(simulate: Simulate) -> Iterator[dict[str, Future[Result]]]:
    with hunts(simulate, MUTANTS, "--seeds", "0:2000") as found:
        yield found


def test_seeds(swept: list[Result]) -> None:
    repeat = "repeat one with: pyccl_sim --seeds N:N+1 --trace"
    assert not faults(swept), faults(swept) + repeat


def test_a_seed_is_a_run(simulate: Simulate) -> None:
    first, second = (simulate("--seeds", "0:40", "--verbose") for _ in range(2))
    assert first.stdout == second.stdout
    hashes = set(re.findall(r"hash (\w+)", first.stdout))
    assert len(hashes) == 40


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(simulate: Simulate, path: Path) -> None:
    result = simulate("--scenario", path, "--verbose")
    assert result.returncode == 0, result.stdout


def test_all_planted_bugs_are_tried() -> None:
    assert sites("PYCCL_MUTANT", "protocol", "sim/protocol") == MUTANTS


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_planted_bug_is_found(hunted: dict[str, Future[Result]], mutant: str) -> None:
    result = hunted[mutant].result()
    assert result.returncode == 1, f"{mutant} was not found"
    assert result.stdout.startswith("seed "), result.stdout


def test_every_mark_is_hit(simulate: Simulate, swept: list[Result]) -> None:
    scripts = [simulate("--scenario", path, "--marks") for path in SCENARIOS]
    assert sites("PYCCL_MARK", "protocol", "sim/protocol") - marks(*swept, *scripts) == set()


def test_wrong_command_line(simulate: Simulate) -> None:
    for arguments in ([], ["--seeds", "5"], ["--seeds", "9:9"], ["--nonsense"]):
        assert simulate(*arguments).returncode == 2


def test_a_script_that_does_not_hold(simulate: Simulate, tmp_path: Path) -> None:
    script = tmp_path / "wrong.txt"
    script.write_text("peers 2\npost 0 p1\nexpect committed 0#0 at p1\n")
    result = simulate("--scenario", script)
    assert result.returncode == 1
    assert "line 3" in result.stdout
