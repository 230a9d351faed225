"""pyccl under torchft's Manager and lighthouse: `pip install torchft`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

torchft = pytest.importorskip("torchft", reason="torchft is not installed")

from pyccl.torch.torchft import ProcessGroupPyccl  # noqa: E402

pytestmark = pytest.mark.slow
LIMIT = timedelta(seconds=20)
EXAMPLE = Path(__file__).parents[2] / "examples" / "torchft_train.py"


class Killed(Exception):  # noqa: N818 - no error
    pass


def train(replica: int, lighthouse: str, steps: int, dies_at: int | None = None) -> dict[str, Any]:
    """One replica of one rank: losses count nothing, but what is averaged, and among how many."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    weight = torch.zeros(4)
    group = ProcessGroupPyccl(timeout=LIMIT)
    manager = torchft.Manager(
        pg=group,
        load_state_dict=lambda state: weight.copy_(state["weight"]),
        state_dict=lambda: {"weight": weight.clone()},
        min_replica_size=1,
        use_async_quorum=False,
        timeout=LIMIT,
        rank=0,
        world_size=1,
        store_addr="127.0.0.1",
        store_port=store.port,
        lighthouse_addr=lighthouse,
        replica_id=f"replica_{replica}",
        hostname="127.0.0.1",
    )
    sizes = []
    try:
        while manager.current_step() < steps:
            manager.start_quorum()
            gradient = torch.full((4,), float(replica + 1))
            if dies_at == manager.current_step():
                group.abort()
                raise Killed
            manager.allreduce(gradient).wait()
            if manager.should_commit():
                weight -= gradient
                sizes.append(manager.num_participants())
    except Killed:
        pass
    finally:
        manager.shutdown(wait=False)
    return {"weight": weight, "sizes": sizes}


@pytest.fixture
def lighthouse() -> Iterator[str]:
    from torchft.coordination import LighthouseServer

    server = LighthouseServer(
        bind="[::]:0", min_replicas=1, join_timeout_ms=1000, heartbeat_timeout_ms=1000
    )
    yield server.address()
    server.shutdown()


def test_replicas_come_and_go(lighthouse: str) -> None:
    results: dict[int, Any] = {}

    def run(replica: int, dies_at: int | None) -> None:
        results[replica] = train(replica, lighthouse, 12, dies_at)

    threads = [
        threading.Thread(target=run, args=(replica, 5 if replica == 1 else None), daemon=True)
        for replica in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert set(results) == {0, 1, 2}
    assert torch.equal(results[0]["weight"], results[2]["weight"])
    assert 3 in results[0]["sizes"]
    assert results[0]["sizes"][-1] == 2


def test_the_example(lighthouse: str) -> None:
    replicas = [
        subprocess.Popen(
            [sys.executable, str(EXAMPLE), "--replica", str(number), "--steps", "20"],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "TORCHFT_LIGHTHOUSE": lighthouse,
                "PYTHONPATH": os.pathsep.join(one for one in sys.path if one),
            },
        )
        for number in range(2)
    ]
    states: dict[str, set[str]] = {}
    for replica in replicas:
        text = replica.communicate(timeout=120)[0]
        assert replica.returncode == 0
        for step, state in re.findall(r"step (\d+): 2 replicas, .* state (\S+)", text):
            states.setdefault(step, set()).add(state)
    assert states
    assert all(len(seen) == 1 for seen in states.values())
