"""Peers on threads of the test process, over real all-reduces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from python.conftest import LIMIT_SECONDS, coordinator, run_peers

import pyccl

__all__ = ["LIMIT_SECONDS", "Peers", "coordinator", "peers", "run_peers"]


class Peers(NamedTuple):
    """run(count, function): what function(comm) gave, in rank order, as run_peers() does it.
    address: of their coordinator, for those that come later."""

    run: Callable[..., list[Any]]
    address: str


@pytest.fixture
def peers(run_peers: Any, coordinator: pyccl.Coordinator) -> Peers:
    return Peers(run_peers, coordinator.address)
