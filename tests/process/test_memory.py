"""What an operation takes beyond the caller's arrays."""

from __future__ import annotations

import pytest
from process import jobs

from pyccl.testing import LocalCluster

MIB = 1 << 20
SIZE = 128 * MIB
LIMIT = 64 * MIB


@pytest.mark.parametrize(
    ("peers", "dtype", "arrays", "in_place"),
    [
        (2, "f4", 1, False),
        (2, "f4", 1, True),
        (2, "f2", 1, False),
        (2, "f2", 1, True),
        (2, "f4", 300, True),
        (4, "f4", 1, False),
        (4, "f4", 1, True),
        (4, "f2", 1, True),
    ],
)
def test_an_operation_takes_no_more_than_promised(
    peers: int, dtype: str, arrays: int, in_place: bool
) -> None:
    with LocalCluster(peers, jobs.peak_growth, (SIZE, dtype, arrays, in_place)) as cluster:
        growth = cluster.results()
    # In place it needs a work buffer: less would mean that nothing has been measured.
    least, most = (SIZE, SIZE + LIMIT) if in_place else (0, LIMIT)
    assert all(least <= each <= most for each in growth.values()), growth


def test_quantized_blocks_are_all_that_is_kept() -> None:
    with LocalCluster(2, jobs.peak_growth_quantized, (SIZE,)) as cluster:
        growth = cluster.results()
    # A quarter for the blocks of the input, and one for those of the result, which wait there.
    assert all(SIZE // 2 <= each <= SIZE // 2 + LIMIT // 2 for each in growth.values()), growth


@pytest.mark.parametrize("peers", [2, 4])
def test_a_broadcast_arrives_where_it_belongs(peers: int) -> None:
    with LocalCluster(peers, jobs.peak_growth_of_broadcast, (SIZE,)) as cluster:
        growth = cluster.results()
    assert all(each <= LIMIT for each in growth.values()), growth


@pytest.mark.parametrize("peers", [1, 3])
@pytest.mark.parametrize("driven", [True, False])
def test_no_memory_for_an_operation_is_an_error_everywhere(peers: int, driven: bool) -> None:
    with LocalCluster(peers, jobs.without_memory, (SIZE, driven)) as cluster:
        results = cluster.results()
    for error, kept, after in results.values():
        if peers == 1:
            assert error is None  # alone nothing is overwritten that would have to be kept
        else:
            assert f"rank {peers - 1} has too little memory" in error
            assert f"{SIZE} bytes" in error
        assert kept
        assert after == peers
