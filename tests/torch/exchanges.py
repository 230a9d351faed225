"""What else torch does with a backend, as the cases of parity.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from forge import Rank
from torch import distributed as dist
from torch.distributed import _functional_collectives as functional
from torch.distributed import checkpoint
from torch.distributed.device_mesh import init_device_mesh


def _thing(rank: int) -> dict[str, Any]:
    """Of another size on each rank."""
    return {"rank": rank, "words": ["x" * n for n in range(rank * 100)], "t": torch.arange(rank)}


def objects(rank: Rank) -> Any:
    me, world, last = rank.rank, rank.world, rank.world - 1
    gathered: list[Any] = [None] * world
    dist.all_gather_object(gathered, _thing(me))
    at_last: list[Any] | None = [None] * world if me == last else None
    dist.gather_object(_thing(me), at_last, dst=last)
    cast = [_thing(5), "of the last"] if me == last else [None, None]
    dist.broadcast_object_list(cast, src=last)
    share: list[Any] = [None]
    dist.scatter_object_list(share, [_thing(r) for r in range(world)] if me == 0 else None, src=0)
    passed: list[Any] = [_thing(me)]
    if me == 0:
        dist.send_object_list(passed, dst=last)
    elif me == last:
        dist.recv_object_list(passed, src=0)
    assert [one["rank"] for one in gathered] == list(range(world))
    return gathered, at_last, cast, share, passed


def objects_of_a_group(rank: Rank) -> Any:
    """Of all but rank 0, whose places are not their ranks."""
    group = dist.new_group(list(range(1, rank.world)))
    gathered: list[Any] = [None] * (rank.world - 1)
    cast: list[Any] = [rank.rank]
    if rank.rank > 0:
        dist.all_gather_object(gathered, _thing(rank.rank), group=group)
        dist.broadcast_object_list(cast, src=rank.world - 1, group=group)
    return gathered, cast


def pairs(rank: Rank) -> Any:
    """Both ways around the ring at once, with tensors of many kinds."""
    me, world = rank.rank, rank.world
    right, left = (me + 1) % world, (me - 1) % world
    out = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8):
        mine = torch.arange(1000 + 7).to(dtype) + me
        from_left, from_right = torch.zeros_like(mine), torch.zeros_like(mine)
        # What goes to one and the same rank in a group of two is told apart by its order.
        ops = [
            dist.P2POp(dist.isend, mine, right),
            dist.P2POp(dist.irecv, from_left, left),
            dist.P2POp(dist.isend, mine + 1, left),
            dist.P2POp(dist.irecv, from_right, right),
        ]
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        assert from_left[0] == left
        out += [from_left, from_right]
    return out


def functional_collectives(rank: Rank) -> Any:
    """Those that compiled programs call, over the whole and over each dimension of a mesh."""
    me, world = rank.rank, rank.world
    groups: list[Any] = [dist.group.WORLD]
    if world == 4:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "columns"))
        groups += [(mesh, 0), (mesh, 1)]
    out: dict[str, Any] = {}
    for i, group in enumerate(groups):
        size = world if i == 0 else 2
        x = torch.arange(8.0 * size).reshape(2 * size, 4) * (me + 1)
        for op in ("sum", "max", "min"):
            out[f"all_reduce {op} {i}"] = functional.wait_tensor(
                functional.all_reduce(x, op, group)
            )
        out[f"all_gather {i}"] = functional.all_gather_tensor(x, 0, group) + 0
        out[f"all_gather 1 {i}"] = functional.all_gather_tensor(x, 1, group) + 0
        out[f"reduce_scatter {i}"] = functional.reduce_scatter_tensor(x, "sum", 0, group) + 0
        out[f"all_to_all {i}"] = functional.all_to_all_single(x, None, None, group) + 0
        out[f"coalesced {i}"] = [
            functional.wait_tensor(one)
            for one in functional.all_reduce_coalesced([x, 2 * x], "sum", group)
        ]
        out[f"gathered together {i}"] = [
            one + 0 for one in functional.all_gather_into_tensor_coalesced([x, 3 * x], group)
        ]
        out[f"broadcast {i}"] = functional.broadcast(x, 0, group) + 0 if i == 0 else 0
    # To rank r go r + 1 rows.
    rows = torch.arange(float(sum(range(1, world + 1)))) + 100 * me
    out["uneven"] = (
        functional.all_to_all_single(
            rows, [me + 1] * world, list(range(1, world + 1)), dist.group.WORLD
        )
        + 0
    )
    assert out["all_reduce sum 0"][0, 1] == sum(range(1, world + 1))
    return out


def checkpoints(rank: Rank) -> Any:
    """Saved and loaded by the whole, by a group that has not all ranks, and behind the scenes."""
    backend = dist.get_backend()
    mesh = init_device_mesh("cpu", (rank.world,))
    numbers = torch.arange(24.0).reshape(12, 2)
    sharded = dist.tensor.distribute_tensor(numbers, mesh, [dist.tensor.Shard(0)])
    state = {"sharded": sharded, "own": torch.full((3,), 7.0), "step": 11}
    out = []
    for how in ("at once", "later"):
        folder = rank.folder / f"{backend} {how}"
        if how == "at once":
            checkpoint.save(state, checkpoint_id=folder)
        else:
            checkpoint.async_save(state, checkpoint_id=folder).result(60)
            dist.barrier()
        loaded = {
            "sharded": dist.tensor.zeros(
                12, 2, device_mesh=mesh, placements=[dist.tensor.Shard(0)]
            ),
            "own": torch.zeros(3),
            "step": 0,
        }
        checkpoint.load(loaded, checkpoint_id=folder)
        assert torch.equal(loaded["sharded"].full_tensor(), numbers)
        out.append([loaded["sharded"].to_local(), loaded["own"], loaded["step"]])
    group = dist.new_group(list(range(1, rank.world)))
    if rank.rank > 0:
        folder = rank.folder / f"{backend} group"
        checkpoint.save({f"of {rank.rank}": numbers * rank.rank}, checkpoint_id=folder,
                        process_group=group)  # fmt: skip
        given = {f"of {one}": torch.zeros(12, 2) for one in range(1, rank.world)}
        checkpoint.load(given, checkpoint_id=folder, process_group=group)
        assert torch.equal(given["of 1"], numbers)
        out.append(given)
    return out


def differing(rank: Rank) -> Any:
    """A case in which the backends do not agree, which has to be noticed."""
    return [torch.ones(3), torch.full((3,), 1.0 if dist.get_backend() == "gloo" else 1.0 + 1e-5)]


CASES: dict[str, Callable[[Rank], Any]] = {
    case.__name__: case
    for case in (
        objects,
        objects_of_a_group,
        pairs,
        functional_collectives,
        checkpoints,
        differing,
    )
}
