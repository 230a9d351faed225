"""Peers that come into a run: with other options than it has, and in the midst of a schedule."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import pyccl

from .conftest import LIMIT_SECONDS, Peers
from .family import REAL

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("options", "others", "told"),
    [
        ({}, {"quantization": "int8"}, "quantization"),
        ({}, {"min_peers": 2}, "min_peers=2"),
        ({}, {"diagnostics": True}, "diagnostics=True"),
        ({"fragments": [["a"], ["b", "c"]]}, {"fragments": [["a", "b"], ["c"]]}, "fragment 0"),
        ({"fragments": [["a"], ["b", "c"]]}, {"fragments": [["b"], ["a", "c"]]}, "order="),
        ({"late": True}, {}, "a window late"),
    ],
)
def test_newcomers_of_other_options_are_refused_alone(
    peers: Peers, options: dict[str, Any], others: dict[str, Any], told: str
) -> None:
    def made(comm: Any, late: bool = False, **given: Any) -> Any:
        parts = {name: torch.nn.Parameter(torch.zeros(2)) for name in "abc"}
        inner = torch.optim.SGD(parts.values(), lr=1.0)
        kind = REAL.StreamingDiLoCo if "fragments" in given else REAL.DiLoCo
        if late:
            kind, given = REAL.DelayedDiLoCo, {"outer_lr": 0.1, **given}
        return kind(parts.items(), inner, comm, sync_every=2, **given)

    def newcomer() -> None:
        with pyccl.connect(
            peers.address, timeout=LIMIT_SECONDS, operation_timeout=LIMIT_SECONDS
        ) as comm:
            with pytest.raises(pyccl.StateSyncError, match=told):
                made(comm, **others)
            refused.set()

    def train(comm: Any) -> None:
        opt, thread = made(comm, **options), None
        if comm.rank == 0:
            thread = threading.Thread(target=newcomer, daemon=True)
            thread.start()
        deadline = time.monotonic() + LIMIT_SECONDS
        while not refused.is_set():
            assert time.monotonic() < deadline
            opt.step()
            opt.step()
        steps = opt.outer.step
        for _ in range(4):
            opt.step()
        assert opt.last_sync.applied
        assert opt.outer.step > steps
        if thread is not None:
            thread.join(LIMIT_SECONDS)

    refused = threading.Event()
    peers.run(2, train)


@pytest.mark.parametrize(
    ("kind", "options", "begins"),
    [
        ("DiLoCo", {}, [0, 5, 10, 15, 20]),
        ("NoLoCo", {"admit_every": 1}, [0, 5, 10, 15, 20]),
        ("StreamingDiLoCo", {"fragments": [["a"], ["b"]]}, [0, 2, 5, 7, 10]),
    ],
)
def test_newcomers_have_the_learning_rate_of_the_others(
    peers: Peers, kind: str, options: dict[str, Any], begins: list[int]
) -> None:
    def rates(comm: Any, thread: threading.Thread | None = None) -> dict[tuple[int, int], float]:
        """By outer and inner step, until all have been together for two outer steps."""
        parts = {name: torch.nn.Parameter(torch.zeros(2)) for name in "ab"}
        inner = torch.optim.SGD(parts.values(), lr=1.0)
        opt = getattr(REAL, kind)(parts.items(), inner, comm, sync_every=5, **options)
        scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda _: 1 / (1 + opt.steps))
        found, together = {}, 0
        deadline = time.monotonic() + LIMIT_SECONDS
        while together < 2:
            assert time.monotonic() < deadline
            found[opt.outer.step, opt.inner_steps] = opt.param_groups[0]["lr"]
            opt.step()
            scheduler.step()
            if opt.last_sync.fresh:
                together += opt.last_sync.members == 3
                if thread is not None and opt.outer.step == 1:
                    thread.start()
        return found

    def newcomer() -> None:
        with pyccl.connect(
            peers.address, timeout=LIMIT_SECONDS, operation_timeout=LIMIT_SECONDS
        ) as comm:
            late.update(rates(comm))

    def train(comm: Any) -> Any:
        if comm.rank:
            return rates(comm)
        thread = threading.Thread(target=newcomer, daemon=True)
        found = rates(comm, thread)
        thread.join(LIMIT_SECONDS)
        return found

    late: dict[tuple[int, int], float] = {}
    first, second = peers.run(2, train)
    assert first == second
    assert late.items() < first.items()
    step, inner = min(late)
    assert step >= 1
    assert inner == 0
    for (step, inner), rate in first.items():
        if step < len(begins):
            assert rate == 1 / (1 + begins[step] + inner)
