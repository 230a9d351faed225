"""torch's own tests of its backends (suite.py): some of them by default, all of them as slow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).with_name("suite.py")
# Each stands for a family, and takes half a second.
SOME = [
    "test_DistributedDataParallelCPU",
    "test_accumulate_gradients_no_sync",
    "test_accumulate_gradients_no_sync_allreduce_with_then_hook",
    "test_all_gather_coalesced_with_empty",
    "test_all_gather_object_subgroup",
    "test_all_reduce_coalesced_full_group_product",
    "test_all_reduce_complex_unsupported_ops",
    "test_all_reduce_max",
    "test_all_reduce_sum_complex",
    "test_all_to_all_single_unequal_split_full_group",
    "test_barrier_timeout_full_group",
    "test_batch_isend_irecv_gloo_tags",
    "test_broadcast_full_group",
    "test_ddp_create_graph",
    "test_destroy_group",
    "test_gather_checks",
    "test_get_backend",
    "test_get_future",
    "test_get_rank_size_group",
    "test_irecv",
    "test_isend",
    "test_monitored_barrier_gloo",
    "test_monitored_barrier_gloo_rank_0_timeout",
    "test_reduce_sum_twice",
    "test_scatter_complex",
    "test_scatter_object_list",
    "test_send_recv_any_source",
    "test_send_recv_with_tag",
    "test_sparse_all_reduce_sum",
    "test_static_graph_api_cpu",
]


def passed(world_size: int, *arguments: str) -> int:
    """How many of the suite's tests have passed; fails if one has not."""
    done = subprocess.run(
        [sys.executable, str(SUITE), *arguments],
        env={**os.environ, "BACKEND": "pyccl", "WORLD_SIZE": str(world_size)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-20_000:]
    ran = re.search(r"^Ran (\d+) tests?", done.stderr, re.MULTILINE)
    assert ran is not None
    skipped = re.search(r"skipped=(\d+)", done.stderr)
    return int(ran[1]) - (int(skipped[1]) if skipped else 0)


def test_some() -> None:
    names = [f"TestBackend.{name}" for name in SOME]
    assert passed(3, *names) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "least"), [(3, 90), (4, 93)])
def test_all(world_size: int, least: int) -> None:
    """As many as pass for Gloo, and those that torch has for MPI only."""
    assert passed(world_size) >= least
