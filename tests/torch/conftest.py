"""Ranks of process groups for tests: as threads of one process, which torch's own init could not
have, and as processes, which can be killed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch")

from torch import distributed as dist  # noqa: E402

from pyccl.torch import ProcessGroup  # noqa: E402
from pyccl.torch.rendezvous import World  # noqa: E402

# Not a package: its name is that of torch itself.
sys.path.append(str(Path(__file__).parent))

if TYPE_CHECKING:
    from crews import Crew, Forge

LIMIT = timedelta(seconds=40)
RunRanks = Callable[..., list[Any]]


@pytest.fixture
def run_ranks() -> RunRanks:
    """run_ranks(size, function): what function(group) gave, by rank. Raises what one raised."""

    def run(size: int, function: Callable[[ProcessGroup], Any], timeout: timedelta = LIMIT) -> Any:
        store = dist.HashStore()
        results: list[Any] = [None] * size
        errors: list[BaseException] = []
        # Who is done waits for the others: ranks that leave are lost to those that work.
        done = threading.Barrier(size)

        def rank(number: int) -> None:
            try:
                world = World(store, number, size, timeout, "a test")
                group = ProcessGroup(world, world.group, timeout, owns=True)
                assert (group.rank(), group.size()) == (number, size)
                results[number] = function(group)
                done.wait(LIMIT.total_seconds())
                group.shutdown()
            except threading.BrokenBarrierError:
                pass
            except BaseException as error:
                errors.append(error)
                done.abort()

        threads = [threading.Thread(target=rank, args=(i,), daemon=True) for i in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * LIMIT.total_seconds())
        assert not any(thread.is_alive() for thread in threads), "a rank hangs"
        if errors:
            raise errors[0]
        return results

    return run


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    from crews import Forge

    running = Forge()
    yield running
    running.close()


@pytest.fixture
def start(forge: Forge, tmp_path: Path) -> Iterator[Callable[..., Crew]]:
    """start("module:function", world, **arguments): a crew, which is killed behind the test."""
    crews: list[Crew] = []

    def start_one(job: str, world: int, **options: Any) -> Crew:
        folder = tmp_path / f"crew{len(crews)}"
        folder.mkdir()
        crews.append(forge.crew(job, world, folder, **options))
        return crews[-1]

    yield start_one
    for crew in crews:
        crew.close()
