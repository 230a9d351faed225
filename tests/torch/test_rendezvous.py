"""How ranks find each other by a store, and what is left of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch import distributed as dist

import pyccl
from pyccl.torch import BackendError, OperationTimeout, farewells, rendezvous
from pyccl.torch.rendezvous import World

LIMIT = timedelta(seconds=30)


def meet(
    store: Any, size: int, work: Callable[[World], Any], before: Callable[[int], None] | None = None
) -> list[Any]:
    """What work(world) gave by rank, each on a thread; with one store for all, or one for each."""
    results: list[Any] = [None] * size
    done = threading.Barrier(size)

    def rank(number: int) -> None:
        try:
            if before is not None:
                before(number)
            given = store[number] if isinstance(store, list) else store
            world = World(given, number, size, LIMIT, "a test")
            results[number] = work(world)
            done.wait(LIMIT.total_seconds())
            world.close()
        except BaseException as error:
            results[number] = error
            done.abort()

    threads = [threading.Thread(target=rank, args=(i,), daemon=True) for i in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


@pytest.mark.parametrize("kind", ["hash", "file", "prefix"])
def test_one_store_serves_one_group_after_the_other(tmp_path: Any, kind: str) -> None:
    """Also where rank 0 comes late, when the others might find the former coordinator."""
    store = dist.FileStore(str(tmp_path / "store"), 2) if kind == "file" else dist.HashStore()
    if kind == "prefix":
        store = dist.PrefixStore("group", store)

    def late(number: int) -> None:
        if number == 0:
            threading.Event().wait(0.2)

    for _ in range(3):
        sums = meet(store, 2, lambda world: world.group.all_reduce(torch.ones(1)).world_size, late)
        assert sums == [2, 2]


def test_coordinators_do_not_pile_up() -> None:
    store, members = dist.HashStore(), len(farewells._members)
    for _ in range(3):
        assert meet(store, 2, lambda world: world.group.world_size) == [2, 2]
    limit = threading.Event()
    for _ in range(100):
        farewells._end_idle()
        if not farewells._hosted:
            break
        limit.wait(0.05)
    assert not farewells._hosted
    assert len(farewells._members) == members


def test_a_coordinator_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pyccl.Coordinator("127.0.0.1:0") as coordinator:
        monkeypatch.setenv("PYCCL_COORDINATOR", coordinator.address)
        assert (
            meet(dist.HashStore(), 3, lambda world: (world.host, world.group.world_size))
            == [(None, 3)] * 3
        )
        assert coordinator.members == 0
        # Whoever fails leaves nothing behind that would be in the way of the next.
        ranks = iter([0, 0])

        def same_rank(store: Any) -> Any:
            try:
                return World(store, next(ranks), 2, timedelta(seconds=5), "a test")
            except BackendError as error:
                return error

        threads, found = [], []
        for _ in range(2):
            threads.append(
                threading.Thread(target=lambda: found.append(same_rank(dist.HashStore())))
            )
            threads[-1].start()
        for thread in threads:
            thread.join(30)
        assert all("does another job" in str(error) for error in found)
        assert meet(dist.HashStore(), 2, lambda world: world.group.world_size) == [2, 2]


def test_who_waits_in_vain_for_rank_0() -> None:
    with pytest.raises(OperationTimeout, match=r"rank 0 has not said within 0\.2 s"):
        World(dist.HashStore(), 1, 2, timedelta(seconds=0.2), "a test")


def test_a_coordinator_that_can_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCCL_LISTEN", "203.0.113.1:0")  # no address of this machine
    first, second = meet(dist.HashStore(), 2, lambda world: None)
    assert isinstance(first, BackendError)
    assert isinstance(second, BackendError)
    assert "rank 0 could not start" in str(second)


def test_a_name_that_means_another_address_on_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 says no address that only its own host can reach, if it has another one."""
    ways = {"name": "127.0.1.1", "192.0.2.1": "10.1.2.3", "127.0.0.1": "127.0.0.1"}

    def on_the_way_to(host: str, otherwise: str = "127.0.0.1") -> str:
        return ways.get(host, otherwise)

    monkeypatch.setattr(rendezvous, "_on_the_way_to", on_the_way_to)
    monkeypatch.setattr(rendezvous, "_host_of", lambda store: store)
    assert rendezvous.own_address("name") == "10.1.2.3"
    assert rendezvous.own_address("localhost") == "127.0.0.1"
    assert rendezvous.own_address("127.0.0.1") == "127.0.0.1"
    assert rendezvous.own_address("") == "127.0.0.1"
    del ways["192.0.2.1"]
    assert rendezvous.own_address("name") == "127.0.1.1"


def test_a_store_is_found_by_its_name() -> None:
    name = socket.gethostname()
    store = dist.TCPStore(name, 0, is_master=True, wait_for_workers=False)
    others = dist.TCPStore(name, store.port, is_master=False)
    sums = meet([store, others], 2, lambda world: world.group.all_reduce(torch.ones(1)).world_size)
    assert sums == [2, 2]
