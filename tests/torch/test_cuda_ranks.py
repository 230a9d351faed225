"""Processes that share a device of CUDA: their trainings, and the loss of one of them."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from crews import Crew

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")

# A rank has CUDA to load first.
SECONDS = 60.0
BOUND = 3.0

Start = Callable[..., "Crew"]


@pytest.mark.parametrize("job", ["ddp", "ddp_views", "ddp_by_hook", "fsdp"])
def test_training_is_that_of_one_process(start: Start, job: str) -> None:
    crew = start(f"cuda_ranks:{job}", 2)
    crew.until_told("agree", [0, 1], SECONDS)
    crew.until_ended([0, 1], SECONDS)


@pytest.mark.parametrize("quantization", ["int8", "fp4_e3m0"])
def test_gradients_in_few_bits(start: Start, quantization: str) -> None:
    crew = start("cuda_ranks:elastic", 2, quantization=quantization)
    crew.until_told("agree", [0, 1], SECONDS)
    crew.until_ended([0, 1], SECONDS)


@pytest.mark.parametrize("job", ["all_reduces", "ddp_steps"])
def test_a_rank_is_killed(start: Start, job: str) -> None:
    """The others are told who, soon, and go on without it on the same device."""
    crew = start(f"cuda_ranks:{job}", 3, stores=2, victim=2)
    crew.until_told("warm", [0, 1, 2], SECONDS)
    sent = crew.signal(2, signal.SIGKILL)
    told = crew.until_told("lost", [0, 1], SECONDS)
    assert all(one["lost"] == [2] for one in told), told
    assert all(re.search(r"\brank 2 lost\b", one["text"]) for one in told), told
    assert all(0 < one["at"] - sent < BOUND for one in told), (sent, told)
    assert [one["sum"] for one in crew.until_told("sum", [0, 1], SECONDS)] == [11.0] * 2
    crew.until_ended([0, 1], SECONDS)
