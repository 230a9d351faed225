"""A training in torch as shared state: whose memory it is, and what comes of numbers."""

from __future__ import annotations

import collections
import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from python.conftest import RunPeers, coordinator, run_peers  # noqa: E402

import pyccl  # noqa: E402
from pyccl.torch import shared_state  # noqa: E402
from pyccl.torch.state_numbers import Nest  # noqa: E402

from .trainings import Kept, Training  # noqa: E402

__all__ = ["coordinator", "run_peers"]


# ---- whose memory


def test_names_are_those_of_the_state_dict_and_the_memory_is_the_models() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    model.register_buffer("passing", torch.zeros(3), persistent=False)
    state = shared_state(model)
    assert list(state) == [f"model.{name}" for name in model.state_dict()]
    for name, one in model.state_dict().items():
        assert state[f"model.{name}"].data_ptr() == one.data_ptr()
    before = state.digest()
    with torch.no_grad():
        model[1].num_batches_tracked += 1
    assert state.digest() != before


def test_tied_weights_are_there_once() -> None:
    training = Training(1)
    assert "model.wte.weight" in training.state
    assert "model.lm_head.weight" not in training.state
    assert "optimizer.wte.weight.exp_avg" in training.state
    whole = torch.zeros(12)
    tied = {"a": whole, "b": whole.view(3, 4), "c": whole.view(3, 4).t()}
    assert list(shared_state(tied)) == ["model.a"]


def test_memory_that_overlaps_in_part_is_refused() -> None:
    whole = torch.zeros(4, 6)
    for a, b in [
        (whole[:2], whole[1:]),
        (whole, whole[1]),
        (whole[:, :2], whole[:, 1:3]),
        (whole, whole[:, 1:3]),
        (whole.view(torch.uint8)[:, 2:9], whole[:, :2]),
    ]:
        with pytest.raises(pyccl.InvalidArgumentError, match="part of their memory in common") as e:
            shared_state({"a": a, "between": torch.zeros(3), "b": b})
        assert "'model.a'" in str(e.value)
        assert "'model.b'" in str(e.value)
    columns = {"a": whole[:, :2], "b": whole[:, 2:5], "none": whole[:0]}
    assert len(shared_state(columns)) == 3


def test_channels_last_is_taken_without_a_copy() -> None:
    conv = torch.nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    state = shared_state(conv, torch.optim.Adam(conv.parameters()))
    assert state["model.weight"].shape == state["optimizer.weight.exp_avg"].shape == (8, 3, 3, 4)
    assert state["model.weight"].data_ptr() == conv.weight.data_ptr()
    turned = torch.zeros(5, 4, 3).permute(2, 0, 1)
    state = shared_state({"turned": turned})
    assert state["model.turned"].data_ptr() == turned.data_ptr()
    assert state["model.turned"].shape == (5, 4, 3)


def in_order(values: Any, order: tuple[int, ...]) -> Any:
    """The same tensor, with its dimensions in another order in memory."""
    return values.permute(order).contiguous().permute(np.argsort(order).tolist())


@pytest.mark.parametrize(
    ("shape", "orders", "refused"),
    [
        ((3, 3), [(1, 0), (0, 1)], False),
        ((3, 3, 3, 3), [(0, 2, 3, 1), (0, 1, 2, 3)], False),
        ((4, 4, 2), [(2, 0, 1), (0, 1, 2)], True),
        ((4, 4, 2), [(2, 0, 1), (2, 1, 0)], True),
        ((4, 4, 2), [(2, 1, 0), (0, 1, 2)], False),
    ],
)
def test_orders_that_look_alike_do_not_mix(
    run_peers: RunPeers, shape: tuple[int, ...], orders: list[tuple[int, ...]], refused: bool
) -> None:
    values = torch.arange(float(np.prod(shape))).reshape(shape)

    def peer(comm: pyccl.Communicator) -> Any:
        own = in_order(values * (1 - comm.rank), orders[comm.rank])
        try:
            comm.sync(shared_state({"x": own}, revision=2 - comm.rank))
        except pyccl.StateSyncError:
            return "refused"
        return torch.equal(own, values)

    assert run_peers(2, peer) == ["refused" if refused else True] * 2


DTYPES = [
    torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.complex64, torch.complex128,
    torch.int8, torch.uint8, torch.int64, torch.uint16, torch.float8_e4m3fn,
]  # fmt: skip


def values_of(dtype: Any, seed: int) -> Any:
    # Bytes that are no NaN in any type, for those are not equal to themselves.
    raw = torch.arange(48, dtype=torch.uint8) % 16 + 16 * seed
    return (raw + seed).remainder(2).bool() if dtype == torch.bool else raw.view(dtype)


def test_all_types_with_and_without_a_copy(run_peers: RunPeers) -> None:
    def peer(comm: pyccl.Communicator) -> bool:
        tensors: dict[str, Any] = {"none": torch.zeros(0, 3), "one": torch.tensor(comm.rank)}
        for dtype in DTYPES:
            tensors[f"{dtype}"] = values_of(dtype, comm.rank).clone()
            tensors[f"{dtype} apart"] = values_of(dtype, comm.rank).repeat(2, 1).t()[:, 0]
        tensors["conj"] = torch.tensor([1 + 1j * comm.rank, 3j]).conj()
        state = shared_state(tensors, revision=1 - comm.rank)
        comm.sync(state)
        assert tensors["conj"].tolist() == [1, -3j]
        assert tensors["one"] == 0
        return all(
            tensors[f"{dtype}{how}"].tolist() == values_of(dtype, 0).tolist()
            for dtype in DTYPES
            for how in ("", " apart")
        )

    assert run_peers(2, peer) == [True, True]


def test_a_strided_tensor_is_read_and_written_back(run_peers: RunPeers) -> None:
    def peer(comm: pyccl.Communicator) -> Any:
        whole = torch.full((4, 3), float(comm.rank))
        state = shared_state({"x": whole[:, 1]}, revision=0)
        whole[:, 1] += 5 * (1 - comm.rank)
        state.revision = 1 - comm.rank
        comm.sync(state)
        return whole.tolist()

    assert run_peers(2, peer) == [[[0, 5, 0]] * 4, [[1, 5, 1]] * 4]


def test_what_has_no_memory_to_share_is_refused() -> None:
    for bad, text in [
        (torch.zeros(3).expand(2, 3), "'model.x' is expanded"),
        (torch.zeros(3, device="meta"), "'model.x' has no memory"),
        (torch.zeros(3).to_sparse(), "'model.x' is not dense"),
        (np.zeros(3), "'model.x' is of type ndarray, not a tensor"),
        (3, "'model.x' is of type int, not a tensor"),
    ]:
        with pytest.raises(pyccl.InvalidArgumentError, match=text):
            shared_state({"x": bad})
    with pytest.raises(pyccl.InvalidArgumentError, match=r"'model\.weight' has no shape yet"):
        shared_state(torch.nn.LazyLinear(3))
    with pytest.raises(pyccl.InvalidTypeError, match="model is of type list"):
        shared_state([torch.zeros(3)])  # type: ignore[arg-type]


def test_a_replaced_tensor_is_told_of() -> None:
    model = torch.nn.Linear(2, 2)
    state = shared_state(model)
    model.weight.data = torch.zeros(2, 2)
    with pytest.raises(pyccl.InvalidArgumentError, match=r"'model\.weight' is not the tensor"):
        state.digest()
    state = shared_state(model)
    model.weight = torch.nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(pyccl.InvalidArgumentError, match=r"'model\.weight' is not the tensor"):
        state.digest()


def test_ties_that_are_cut_are_told_of() -> None:
    training = Training(1)
    training.model.lm_head.weight = torch.nn.Parameter(torch.zeros(7, 4))
    with pytest.raises(pyccl.InvalidArgumentError, match=r"'model\.lm_head\.weight' is not the t"):
        training.state.digest()
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    optimizer = torch.optim.Adam(groups, lr=torch.tensor(0.5))
    state = shared_state({}, optimizer)
    state.digest()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    state.digest()
    optimizer.param_groups[1]["lr"] = torch.tensor(0.25)
    with pytest.raises(pyccl.InvalidArgumentError, match=r"'optimizer.param_groups\.1\.lr' is not"):
        state.digest()


def test_shards_of_fsdp_are_taken_and_not_the_whole() -> None:
    from torch import distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=1)
    try:
        model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        optimizer = torch.optim.AdamW(model.parameters())
        state = shared_state(model, optimizer)
        for name in ("model.0.weight", "optimizer.0.weight.exp_avg"):
            assert type(state[name]) is torch.Tensor
        shard = model[0].weight.to_local()
        assert state["model.0.weight"].data_ptr() == shard.data_ptr()
        before = state.digest()
        model(torch.ones(2, 5)).sum().backward()
        optimizer.step()
        after = state.digest()
        assert after != before
        # From here on the module shows its whole parameters, until it is told not to.
        model(torch.ones(2, 5))
        assert state.digest() == after
        state["model.0.weight"].fill_(0)
        assert model(torch.ones(2, 5)).sum() == model[1](model[0].bias.expand(2, 4)).sum()
    finally:
        dist.destroy_process_group()


# ---- numbers

NUMBERS = st.one_of(
    st.booleans(),
    st.integers(-(1 << 100), 1 << 100),
    st.floats(width=64),
    st.sampled_from([0, -0.0, 1 << 53, (1 << 53) + 1, (1 << 63) - 1, float("nan"), 1, 1.0, True]),
)
PLAIN = st.one_of(st.none(), st.text(max_size=3))
SHAPES = st.recursive(
    st.sampled_from(["number", "plain"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    ),
    max_leaves=8,
)


def filled(shape: Any, draw: Any) -> Any:
    if isinstance(shape, dict):
        return {key: filled(one, draw) for key, one in shape.items()}
    if isinstance(shape, (list, tuple)):
        return type(shape)(filled(one, draw) for one in shape)
    return draw(NUMBERS if shape == "number" else PLAIN)


def expected(here: Any, there: Any) -> Any:
    """The numbers of the one in place of those of the other."""
    if isinstance(here, dict):
        return {key: expected(one, there[key]) for key, one in here.items()}
    if isinstance(here, (list, tuple)):
        return type(here)(map(expected, here, there))
    return here if here is None or isinstance(here, str) else there


@settings(max_examples=100, deadline=None)
@given(st.data(), SHAPES)
def test_numbers_come_back_as_what_they_were(data: Any, shape: Any) -> None:
    held = [filled(shape, data.draw), filled(shape, data.draw)]
    wish = expected(held[1], held[0])
    before = repr(held[1])
    writes = []

    def write(nest: Any) -> None:
        writes.append(nest)
        held[1] = nest

    nests = [Nest("x", lambda: held[0], print), Nest("x", lambda: held[1], write)]
    arrays = [dict(one.arrays()) for one in nests]
    for one in nests:
        one.gather()
    assert arrays[0].keys() == arrays[1].keys()
    nests[1].scatter()
    assert not writes
    for name, one in arrays[0].items():
        arrays[1][name][...] = one
    nests[1].scatter()
    assert repr(held[1]) == repr(wish)
    assert bool(writes) == (before != repr(wish))


def test_numbers_in_special_clothes() -> None:
    Point = collections.namedtuple("Point", "x y")

    def nest(number: int) -> Any:
        return {
            "point": Point(number, "text"),
            "pair": Point(number, 1),
            "times": collections.Counter({3: number}),
            "numpy": np.float32(number),
            "tensor": torch.full((2,), number),
            "array": np.full((2, 1), number),
            "call": print,
        }

    held = [nest(1), nest(2)]

    def write(changed: Any) -> None:
        held[1] = changed

    nests = [Nest("x", lambda: held[0], print), Nest("x", lambda: held[1], write)]
    state = [pyccl.SharedState(dict(one.arrays())) for one in nests]
    for one in nests:
        one.gather()
    for name, one in state[0].items():
        np.copyto(np.asarray(state[1][name]), np.asarray(one))
    before = held[1]
    nests[1].scatter()
    assert repr(held[1]) == repr(nest(1))
    assert type(held[1]["numpy"]) is np.float32
    assert type(held[1]["times"]) is collections.Counter
    assert repr(before) == repr(nest(2))  # what load_state_dict() gets is a copy


def test_numbers_that_cant_be_shared() -> None:
    model = {"w": torch.zeros(1)}
    for bad in (7, 1.5, True, 2j, np.float32(1)):
        with pytest.raises(
            pyccl.InvalidTypeError, match=r"'step' is the number .*numpy.array\(7\)"
        ):
            shared_state(model, step=bad)
    for bad in (None, "text", [1], {"a": 1}, print):
        with pytest.raises(pyccl.InvalidTypeError, match=r"'step' is of type .*no tensor"):
            shared_state(model, step=bad)
    with pytest.raises(pyccl.InvalidArgumentError, match=r"'x\.n' is an int of 201 bits"):
        shared_state(model, x=Kept({"n": (1 << 200) + (1 << 100)}))


def test_a_nest_that_changes_is_told_of() -> None:
    kept = Kept({"n": 1, "log": [1.0]})
    state = shared_state({"w": torch.zeros(1)}, kept=kept)
    kept.held = {"n": 1.5, "log": [2.0]}
    state.digest()
    kept.held["log"].append(3.0)
    with pytest.raises(pyccl.InvalidArgumentError, match=r"'kept\.log' is 2 numbers, but was 1"):
        state.digest()
    kept.held = {"n": None, "log": [2.0]}
    with pytest.raises(pyccl.InvalidArgumentError, match=r"'kept\.n' is not there, but was a num"):
        state.digest()


def test_extra_state_of_modules_and_other_models() -> None:
    class Calibrated(torch.nn.Linear):
        scale = 1

        def get_extra_state(self) -> Any:
            return {"scale": self.scale}

        def set_extra_state(self, state: Any) -> None:
            self.scale = state["scale"]

    inner = Calibrated(2, 2)
    critic = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(critic.parameters(), 0.1, momentum=0.5)
    state = shared_state(torch.nn.Sequential(inner), critic=critic, critic_optimizer=optimizer)
    assert state["model.0._extra_state.scale"] == 1
    assert "critic.weight" in state
    assert "critic_optimizer.critic.weight.momentum_buffer" in state
