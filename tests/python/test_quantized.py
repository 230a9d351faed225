"""Quantized operations among peers: the bits that their definition gives, the same at all."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import pyccl
from pyccl import Quantization

from .codecs import CODECS
from .quantized import all_reduced, all_reduced_on_ring, rounded, total

Array = np.ndarray[Any, Any]

ROUNDINGS = ["nearest", "stochastic"]


def given(rank: int, size: int, dtype: Any = np.float32) -> Array:
    """Numbers of many magnitudes, some of them 0."""
    rng = np.random.default_rng(rank + 100 * size)
    numbers = rng.standard_normal(size) * np.exp(2 * rng.standard_normal(size))
    numbers[::17] = 0.0
    return numbers.astype(dtype)


def same(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    assert found.tobytes() == expected.astype(found.dtype).tobytes()


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("codec", CODECS)
def test_all_reduce_gives_all_the_twins_bits(run_peers: Any, codec: Any, rounding: Any) -> None:
    q = Quantization(codec, block=64, rounding=rounding, seed=5)
    sizes = [1, 63, 5000, 200_003]
    inputs = {size: [given(rank, size) for rank in range(3)] for size in sizes}

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        for size in sizes:
            x = inputs[size][rank].copy()
            info = comm.all_reduce(x, op="avg", quantization=q)
            same(x, all_reduced(inputs[size], q, "avg"))
            assert info.algorithm == "direct"
            assert (info.quantization_step > 0) == (size > 1)

    run_peers(3, function)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("world", [2, 4])
def test_other_collectives_round_once(run_peers: Any, world: int, codec: Any) -> None:
    q = Quantization(codec, block=32, scale="bf16", rounding="stochastic", seed=9)
    size = 1000
    inputs = [given(rank, size * world) for rank in range(world)]

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        mine = inputs[rank]
        share = slice(rank * size, (rank + 1) * size)
        found = comm.reduce_scatter(mine.reshape(world, size), quantization=q)
        same(found, total([x[share] for x in inputs], q, "sum", [1.0] * world))
        rows = comm.all_gather(mine, quantization=q)
        for source, row in zip(inputs, rows, strict=True):
            same(row, rounded(source, q))
        x = mine.copy()
        comm.broadcast(x, root=world - 1, quantization=q)
        same(x, rounded(inputs[-1], q))
        if world == 2:
            out = np.empty_like(mine)
            comm.exchange(mine, out, peer=1 - rank, quantization=q)
            same(out, rounded(inputs[1 - rank], q))

    run_peers(world, function)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_lists_weights_and_types(run_peers: Any, dtype: Any) -> None:
    q = Quantization("int8", block=96)
    sizes, weights = [0, 3, 700, 20_000], [0.5, 2.0, 0.0]
    inputs = [[given(rank, size, dtype) for size in sizes] for rank in range(3)]

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        mine = inputs[rank]
        out = [np.empty_like(x) for x in mine]
        info = comm.all_reduce(mine, out=out, op="avg", weight=weights[rank], quantization=q)
        assert info.world_size == 2
        for i, size in enumerate(sizes):
            same(mine[i], given(rank, size, dtype))
            if size:
                same(out[i], all_reduced([x[i] for x in inputs], q, "avg", weights))

    run_peers(3, function)


@pytest.mark.parametrize("partial", ["f32", "bf16"])
@pytest.mark.parametrize("codec", ["int8", "fp4_e3m0", "int4_minmax"])
def test_a_ring_rounds_its_result_alone(run_peers: Any, codec: Any, partial: Any) -> None:
    q = Quantization(codec, partial=partial)
    inputs = [given(rank, 50_000) for rank in range(4)]

    def function(comm: pyccl.Communicator) -> bytes:
        rank = comm.rank
        x = inputs[rank].copy()
        info = comm.all_reduce(x, op="avg", algorithm="ring", quantization=q)
        assert info.algorithm == "ring"
        error = np.abs(x - np.mean(np.asarray(inputs, np.float64), axis=0)).max()
        assert error <= all_reduced_on_ring(inputs, q, "avg", 4)
        return x.tobytes()

    assert len(set(run_peers(4, function))) == 1


def test_in_place_gathers_and_odd_shares(run_peers: Any) -> None:
    q = Quantization("int8", block=32)
    counts = [70, 0, 33]
    inputs = [given(rank, counts[rank]) for rank in range(3)]

    def function(comm: pyccl.Communicator) -> None:
        me = comm.rank
        found = comm.all_gather(inputs[me], counts=counts, quantization=q)
        same(found, np.concatenate([rounded(x, q) for x in inputs]))
        whole = np.zeros((3, 50), np.float32)
        whole[me] = given(me, 50)
        comm.all_gather(whole[me], out=whole, quantization=q)
        for rank in range(3):
            same(whole[rank], rounded(given(rank, 50), q))

    run_peers(3, function)


def test_alone_nothing_is_rounded(alone: pyccl.Communicator) -> None:
    x = given(0, 3000, np.float64)
    many = [given(1, 3) for _ in range(50)]
    y = [x.copy(), *(each.copy() for each in many)]
    info = alone.all_reduce(y, quantization="e3m0")
    same(y[0], x)
    for found, each in zip(y[1:], many, strict=True):
        same(found, each)
    assert info.wire_ratio == 1.0
    assert info.quantization_step == 0.0


@pytest.mark.parametrize(
    ("codec", "most"),
    [
        ("int8", 0.27),
        ("fp8_e4m3", 0.27),
        ("int4", 0.145),
        ("int4_minmax", 0.145),
        ("fp4_e3m0", 0.145),
    ],
)
def test_what_is_sent_is_told(run_peers: Any, codec: Any, most: float) -> None:
    inputs = [given(rank, 300_000) for rank in range(2)]

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        plain = comm.all_reduce(inputs[rank].copy())
        info = comm.all_reduce(inputs[rank].copy(), quantization=codec)
        assert info.bytes_sent <= most * plain.bytes_sent
        assert info.wire_ratio == pytest.approx(info.bytes_sent / plain.bytes_sent, rel=1e-3)
        _, step = Quantization(codec).rounded(inputs[rank])
        assert step / 3 <= info.quantization_step <= 3 * step

    run_peers(2, function)


def test_zstd_changes_no_bit_and_is_left_out_within_a_host(run_peers: Any) -> None:
    plain = Quantization("int8")
    packed = dataclasses.replace(plain, lossless="zstd")
    values = np.where(np.arange(400_000) % 20, 0, given(0, 400_000)).astype(np.float32)

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        x = values.copy()
        # One of the two may ask for it alone. tests/process/test_quantized_link.py has a link.
        info = comm.all_reduce(x, quantization=packed if rank == 0 else plain)
        same(x, all_reduced([values, values], plain))
        assert info.bytes_packed == 0

    run_peers(2, function, transport="tcp")


def test_what_is_no_number_stays_none(run_peers: Any) -> None:
    inputs = [given(rank, 1024) for rank in range(3)]
    inputs[1][700] = np.inf
    inputs[2][10] = np.nan

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        x = inputs[rank].copy()
        comm.all_reduce(x, quantization=Quantization("fp4_e2m1", block=128))
        spoiled = np.isnan(x).reshape(-1, 128)
        assert spoiled.any(axis=1).tolist() == spoiled.all(axis=1).tolist()
        assert np.flatnonzero(spoiled.any(axis=1)).tolist() == [0, 5]

    run_peers(3, function)


def test_members_must_mean_the_same_format(run_peers: Any) -> None:
    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        x = given(rank, 100)
        before = x.copy()
        q = Quantization("int8", block=64 if rank else 32)
        with pytest.raises(pyccl.MismatchError, match="int8 in blocks of 64") as raised:
            comm.all_reduce(x, quantization=q)
        assert "int8 in blocks of 32" in str(raised.value)
        with pytest.raises(pyccl.MismatchError, match="quantization=int4"):
            comm.all_reduce(x, quantization="int4" if rank else None)
        same(x, before)
        # How a member rounds is its own affair.
        rounding = "nearest" if rank else "stochastic"
        comm.all_reduce(x, quantization=Quantization("int8", rounding=rounding, lossless="zstd"))

    run_peers(2, function)


def test_what_cant_be_quantized_says_so(alone: pyccl.Communicator) -> None:
    x = np.ones(64, np.float32)
    refused = pyccl.InvalidArgumentError
    with pytest.raises(refused, match="array 1 is of i32"):
        alone.all_reduce([x, np.ones(3, np.int32)], quantization="int8")
    with pytest.raises(refused, match="max can't be quantized"):
        alone.all_reduce(x, op="max", quantization="int8")
    with pytest.raises(refused, match="by one_shot can't be quantized, only by direct or ring"):
        alone.all_reduce(x, algorithm="one_shot", quantization="int8")
    with pytest.raises(refused, match="codec is 'int7', but must be one of"):
        alone.all_reduce(x, quantization="int7")
    with pytest.raises(pyccl.PycclError, match="quantization is 8"):
        alone.all_reduce(x, quantization=8)  # type: ignore[call-overload]


def test_subgroups_and_works(run_peers: Any) -> None:
    inputs = [given(rank, 4000) for rank in range(3)]
    q = Quantization("fp8_e4m3")

    def function(comm: pyccl.Communicator) -> None:
        rank = comm.rank
        x = inputs[rank].copy()
        works = [comm.all_reduce(x, tag=1, quantization=q, async_op=True)]
        if rank != 1:
            y = inputs[rank].copy()
            comm.subgroup([0, 2]).all_reduce(y, quantization=q)
            same(y, all_reduced([inputs[0], inputs[2]], q))
        for work in works:
            assert work.wait(20).wire_ratio < 0.27
        same(x, all_reduced(inputs, q))

    run_peers(3, function)
