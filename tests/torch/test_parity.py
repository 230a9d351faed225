"""What torch gives with gloo it gives with pyccl."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from crews import Crew, Event

SECONDS = 60.0
# Sums of more than two numbers depend on their order.
CLOSE = 1e-6

Start = Callable[..., "Crew"]


def compared(start: Start, case: str, world: int, reference: str = "gloo") -> list[Event]:
    crew = start("parity:both", world, case=case, reference=reference, stores=2)
    everybody = list(range(world))
    found = crew.until_told("compared", everybody, SECONDS)
    crew.until_ended(everybody, SECONDS)
    assert all(one["compared"] > 0 for one in found)
    return found


def check(found: list[dict[str, Any]], *, bitwise: bool) -> None:
    worst = max(found, key=lambda one: float(one["most"]))
    assert worst["most"] <= CLOSE, worst
    if bitwise:
        assert all(one["bitwise"] for one in found), worst


@pytest.mark.parametrize(
    ("case", "world"),
    [("ddp", 2), ("ddp", 4), ("ddp_views", 2), ("fsdp", 2), ("fsdp", 4)],
)
def test_training(start: Start, case: str, world: int) -> None:
    check(compared(start, case, world), bitwise=world == 2)


def test_a_hook_that_begins_operations_in_callbacks(start: Start) -> None:
    # With Gloo ranks may add up parts of different buckets, or wait for each other for ever.
    check(compared(start, "power_sgd", 2, reference="pyccl"), bitwise=True)


@pytest.mark.parametrize("case", ["hsdp", "tensor_parallel"])
def test_training_over_a_mesh(start: Start, case: str) -> None:
    # All of its sums are of two.
    check(compared(start, case, 4), bitwise=True)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize(
    "case", ["objects", "objects_of_a_group", "pairs", "functional_collectives", "checkpoints"]
)
def test_exchange(start: Start, case: str, world: int) -> None:
    check(compared(start, case, world), bitwise=True)


def test_a_difference_is_noticed(start: Start) -> None:
    found = compared(start, "differing", 2)
    assert not any(one["bitwise"] for one in found)
    assert all(one["where"] == "[1]" for one in found)
    with pytest.raises(AssertionError):
        check(found, bitwise=False)
