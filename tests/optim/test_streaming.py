"""Streaming DiLoCo: which fragment when, and what comes of it."""

from __future__ import annotations

import io
import itertools
import threading
from typing import Any

import numpy as np
import pytest

import pyccl
from pyccl.errors import InvalidArgumentError
from pyccl.optim.schedule import Event, StreamingSchedule, balanced, layered, strided

from .conftest import LIMIT_SECONDS, Peers
from .family import REAL, Family

torch = pytest.importorskip("torch")

NAMES = ("a", "b")
# So many that each number is sent as few times as can be.
WIDTH = 200_000


def model_of(
    comm: Any = None, start: float = 1.0, width: int = 3, family: Family = REAL, **options: Any
) -> tuple[Any, Any]:
    """Two parameters, with a fragment for each unless said otherwise."""
    parameters = {name: torch.nn.Parameter(torch.full((width,), start)) for name in NAMES}
    options = {
        "fragments": [["a"], ["b"]], "sync_every": 6, "outer_lr": 2.0, "outer_momentum": 0.0,
        "merge_alpha": 0.0, **options,
    }  # fmt: skip
    inner = torch.optim.SGD(parameters.values(), lr=1.0)
    return parameters, family.StreamingDiLoCo(parameters.items(), inner, comm, **options)


def train(parameters: Any, opt: Any, steps: int, gradient: float = 2.0) -> list[list[float]]:
    """The first number of each parameter behind each step."""
    found = []
    for _ in range(steps):
        for one in parameters.values():
            one.grad = torch.full_like(one, gradient)
        opt.step()
        found.append([one[0].item() for one in parameters.values()])
    return found


def trace(found: list[list[float]], place: int) -> list[float]:
    return [one[place] for one in found]


# --- Schedule -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "every", "overlap"),
    [(1, 1, 0), (1, 5, 4), (4, 8, 1), (3, 30, 9), (8, 8, 0), (8, 100, 5), (3, 11, 2), (5, 7, 0)],
)
def test_each_fragment_once_in_a_window(count: int, every: int, overlap: int) -> None:
    schedule = StreamingSchedule(count, every, overlap)
    assert schedule.sync_every == every
    sent, applied, at = [], [], 0
    for step in range(3 * count):
        assert every // count <= schedule.gap(step) <= -(-every // count)
        for inner in range(1, schedule.gap(step) + 1):
            assert schedule.begin(step) + inner == at + 1
            at += 1
            for event in schedule.due(inner, step):
                (sent if event.kind == "send" else applied).append((at, event.fragment))
    assert [one[1] for one in sent] == [i % count for i in range(3 * count)]
    assert [(at + overlap, fragment) for at, fragment in sent] == applied
    for fragment in range(count):
        times = [at for at, one in applied if one == fragment]
        assert {after - before for before, after in itertools.pairwise(times)} == {every}


def test_a_step_that_failed_is_of_the_same_fragment_again() -> None:
    schedule = StreamingSchedule(3, 6)
    assert schedule.due(2, 4) == (Event("send", 1), Event("apply", 1))
    assert schedule.due(1, 4) == ()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, 6), "fragments is 0"), ((2, 0), "sync_every is 0"), ((2, 6, -1), "overlap is -1"),
        ((4, 3), "below the 4"), ((2, 6, 3), "overlap is 3"), ((4, 7, 1), "overlap is 1"),
        ((True, 6), "fragments is True"),
    ],
)  # fmt: skip
def test_schedules_that_can_not_be(arguments: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        StreamingSchedule(*arguments)
    with pytest.raises(InvalidArgumentError, match="inner_steps is 4"):
        StreamingSchedule(2, 6).due(4, 0)


def test_fragments_of_about_one_size() -> None:
    sizes = {"a": 5, "b": 9, "c": 5, "d": 1, "e": 2}
    fragments = balanced(sizes, 2)
    assert sorted(name for one in fragments for name in one) == sorted(sizes)
    filled = [sum(sizes[name] for name in one) for one in fragments]
    assert max(filled) - min(filled) <= 1
    assert fragments == balanced(dict(reversed(sizes.items())), 2)
    assert [len(one) for one in balanced({"a": 9, "b": 0, "c": 0}, 3)] == [1, 1, 1]
    with pytest.raises(InvalidArgumentError, match="6 fragments of 5"):
        balanced(sizes, 6)


def test_strided_fragments_hold_parts_of_all_depths() -> None:
    layers = [[f"{i}.w", f"{i}.b"] for i in range(5)]
    assert strided(layers, 2) == [
        ["0.w", "0.b", "2.w", "2.b", "4.w", "4.b"], ["1.w", "1.b", "3.w", "3.b"],
    ]  # fmt: skip
    with pytest.raises(InvalidArgumentError, match="6 fragments of 5"):
        strided(layers, 6)


def test_fragments_of_layers() -> None:
    """Layers go round, and what is in none goes where there is least."""
    sizes = {"embed.weight": 50, "norm.weight": 2, "head.weight": 40}
    sizes |= {f"blocks.{i}.{name}": 10 for i in range(5) for name in ("w", "b.0.x")}
    assert layered(sizes, 2) == [
        ["blocks.0.w", "blocks.0.b.0.x", "blocks.3.w", "blocks.3.b.0.x", "head.weight"],
        ["blocks.1.w", "blocks.1.b.0.x", "blocks.4.w", "blocks.4.b.0.x", "norm.weight"],
        ["blocks.2.w", "blocks.2.b.0.x", "embed.weight"],
    ]
    assert layered({"0.weight": 1, "0.bias": 1, "2.weight": 1}, 9) == [
        ["0.weight", "0.bias", "2.weight"],
    ]  # fmt: skip
    for wrong in (0, 3):
        with pytest.raises(InvalidArgumentError, match=r"model\.named_parameters\(\)"):
            layered({"embed.weight": 1} if wrong else sizes, wrong)


def test_fragments_may_be_asked_for_in_several_ways() -> None:
    model = torch.nn.Sequential(*[torch.nn.Linear(2, 2) for _ in range(4)])

    def of(fragments: Any) -> Any:
        opt = REAL.StreamingDiLoCo(
            model.named_parameters(), torch.optim.SGD(model.parameters(), lr=0.1),
            fragments=fragments, sync_every=8,
        )  # fmt: skip
        return opt.schedule.fragments, opt.outer.names

    found = of("layers:2")
    first = ["0.weight", "0.bias", "2.weight", "2.bias"]
    second = ["1.weight", "1.bias", "3.weight", "3.bias"]
    assert found == (2, (*first, *second))
    assert of([first, second]) == found
    by_part = of(lambda names: [[one for one in names if one in part] for part in (first, second)])
    assert by_part == found
    assert of(3)[0] == 3
    for wrong in ("layers", "layers:x", "blocks:2"):
        with pytest.raises(InvalidArgumentError, match="must be like"):
            of(wrong)


# --- Traces that are known ------------------------------------------------------------------------


def check_golden(family: Family, peers: Peers) -> None:
    """S-G1: those of torchft's regression tests, of one and of two alike replicas."""

    def run(comm: Any) -> None:
        found = train(*model_of(comm, family=family), 12)
        assert trace(found, 0)[:9] == [-1, -3, -11, -13, -15, -17, -19, -21, -35]
        assert trace(found, 1) == [-1, -3, -5, -7, -9, -23, -25, -27, -29, -31, -33, -47]

    run(None)
    peers.run(2, run)


def check_golden_halves(family: Family, _: Peers) -> None:
    found = train(*model_of(merge_alpha=0.5, family=family), 15)
    assert trace(found, 0)[:9] == [-1, -3, -8, -10, -12, -14, -16, -18, -24.5]
    assert trace(found, 0)[14] == -40.25


def check_alone(family: Family, _: Peers) -> None:
    """S-3. The outer parameters go on all the same."""
    parameters, opt = model_of(merge_alpha=1.0, family=family)
    found = train(parameters, opt, 20)
    assert trace(found, 0) == trace(found, 1) == [1 - 2.0 * s for s in range(1, 21)]
    assert opt.outer.step == 6
    assert all((one < 1).all() for one in opt.outer.views.values())


def check_dropped(family: Family, _: Peers) -> None:
    """S-6: alpha 0, lr 1, mu 0, alone: a cycle goes on by H - tau steps."""
    parameters, opt = model_of(overlap=2, outer_lr=1.0, family=family)
    found = train(parameters, opt, 15)
    # Applied behind steps 3, 9, 15: what was sent two steps before.
    assert [trace(found, 0)[s - 1] for s in (3, 9, 15)] == [-1, -9, -17]
    assert trace(found, 0)[3] == -3


def check_overlap(family: Family, _: Peers) -> None:
    parameters, opt = model_of(
        overlap=2, outer_lr=1.0, outer_momentum=0.5, merge_alpha=0.5, family=family
    )
    phi = {name: view.copy() for name, view in opt.outer.views.items()}
    train(parameters, opt, 2)
    # Sent behind the first step, and nothing has happened to it since.
    assert all(np.array_equal(opt.outer.views[name], phi[name]) for name in NAMES)
    assert not opt.last_sync.fresh
    train(parameters, opt, 1)
    assert opt.last_sync.fresh
    assert opt.last_sync.applied
    assert opt.last_sync.fragment == 0
    # delta 2, momentum 2, step 2 + 0.5 * 2; merged with a theta of three steps.
    assert opt.outer.views["a"][0] == 1 - 3
    assert parameters["a"][0].item() == (-5 - 2) / 2
    assert np.array_equal(opt.outer.views["b"], phi["b"])


# --- The same as DiLoCo ---------------------------------------------------------------------------


def test_one_fragment_without_overlap_is_diloco(peers: Peers) -> None:
    """S-1, bit for bit."""

    def run(comm: Any) -> Any:
        chance = np.random.default_rng(comm.rank)
        start = torch.from_numpy(np.random.default_rng(9).standard_normal(40, np.float32))
        made = []
        for kind in ("plain", "streaming"):
            weight = torch.nn.Parameter(start.clone())
            inner = torch.optim.SGD([weight], lr=0.1, momentum=0.5)
            common = {"sync_every": 3, "outer_lr": 0.7, "outer_momentum": 0.9}
            opt = (
                pyccl.optim.DiLoCo([weight], inner, comm, **common)
                if kind == "plain"
                else pyccl.optim.StreamingDiLoCo(
                    [weight], inner, comm, fragments=1, merge_alpha=0.0, **common
                )
            )
            made.append((weight, opt))
        for _ in range(12):
            gradient = torch.from_numpy(chance.standard_normal(40, np.float32))
            for weight, opt in made:
                weight.grad = gradient.clone()
                opt.step()
        (one, plain), (other, streaming) = made
        assert torch.equal(one, other)
        assert np.array_equal(plain.outer.params, streaming.outer.params)
        assert np.array_equal(plain.outer.momentum, streaming.outer.momentum)
        return plain.outer.params.tobytes()

    assert len(set(peers.run(2, run))) == 1


@pytest.mark.parametrize("quantization", [None, "fp4_e3m0"])
def test_all_peers_hold_the_same(peers: Peers, quantization: Any) -> None:
    def run(comm: Any) -> Any:
        parameters, opt = model_of(
            comm, width=WIDTH, overlap=2, merge_alpha=0.5, outer_lr=0.4, outer_momentum=0.9,
            quantization=quantization, error_feedback=quantization is not None,
        )  # fmt: skip
        hashes = []
        for i in range(24):
            for one in parameters.values():
                chance = np.random.default_rng([comm.rank, i])
                one.grad = torch.from_numpy(chance.standard_normal(WIDTH, np.float32))
            opt.step()
            if opt.last_sync.fresh:
                assert opt.last_sync.contributors == 3
                hashes.append(opt.outer.hash())
        sent = opt.last_sync.bytes_sent
        return hashes, sent

    found = peers.run(3, run)
    assert all(hashes == found[0][0] for hashes, _ in found)
    assert len(found[0][0]) == 8
    full = 4 * WIDTH * 2 * 2 / 3
    assert found[0][1] <= (full * 1.01 if quantization is None else 0.2 * full)


# --- Newcomers, checkpoints -----------------------------------------------------------------------


def check_newcomer(family: Family, peers: Peers) -> None:
    """It counts when it has trained a window."""
    came = threading.Event()
    found: list[Any] = []

    def late() -> None:
        with pyccl.connect(peers.address) as comm:
            parameters, opt = model_of(comm, start=100.0, outer_lr=1.0, family=family)
            came.set()
            first = [one[0].item() for one in parameters.values()]
            found.append((first, opt.outer.step))
            work(parameters, opt)

    def work(parameters: Any, opt: Any) -> list[tuple[int, int]]:
        counts = []
        while opt.outer.step < 8:
            train(parameters, opt, 1)
            if opt.last_sync.fresh:
                counts.append((opt.last_sync.step, opt.last_sync.contributors))
        return counts

    newcomer = threading.Thread(target=late, daemon=True)

    def run(comm: Any) -> Any:
        parameters, opt = model_of(comm, outer_lr=1.0, family=family)
        train(parameters, opt, 3)
        if comm.rank == 0:
            newcomer.start()
        while comm.world_size == 2:
            train(parameters, opt, 3)
            if opt.outer.step >= 4:  # slowly: it has to come before the end
                came.wait(0.2)
        return opt.outer.step, work(parameters, opt)

    outcomes = peers.run(2, run)
    newcomer.join(LIMIT_SECONDS)
    assert len(found) == 1
    (first, step) = found[0]
    assert step == outcomes[0][0]
    # At once phi, of which both fragments are then somewhere below the start.
    assert max(first) < 1
    for _, counts in outcomes:
        assert counts == [(step + i, 2 if i < 2 else 3) for i in range(1, len(counts) + 1)]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_checkpoint_in_the_midst_of_an_overlap(at: int) -> None:
    """D-12: what was sent is sent again, and not what has been learned since."""
    options: Any = {
        "overlap": 1, "merge_alpha": 0.5, "outer_momentum": 0.9, "quantization": "int8",
        "error_feedback": True,
    }  # fmt: skip
    parameters, opt = model_of(**options)
    train(parameters, opt, 6 + at)
    file = io.BytesIO()
    values = {name: one.detach().clone() for name, one in parameters.items()}
    torch.save((values, opt.state_dict()), file)
    expected = train(parameters, opt, 9, gradient=0.5)

    others, again = model_of(start=7.0, **options)
    file.seek(0)
    values, state = torch.load(file)
    with torch.no_grad():
        for name, one in others.items():
            one.copy_(values[name])
    again.load_state_dict(state)
    assert train(others, again, 9, gradient=0.5) == expected
    assert again.outer.hash() == opt.outer.hash()


# --- Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fragments": [["a"], ["c"]]}, "unknown: \\['c'\\], in none: \\['b'\\]"),
        ({"fragments": [["a", "b"], ["b"]]}, "named: 3 of 2"),
        ({"fragments": [["a", "b"], []]}, "each fragment have some"),
        ({"fragments": 3}, "3 fragments of 2 parameters"),
        ({"merge_alpha": 1.5}, "merge_alpha is 1.5"),
        ({"merge_alpha": None}, "merge_alpha is None"),
        ({"merge_alpha": "x"}, "merge_alpha is 'x'"),
        ({"overlap": 3}, "overlap is 3"),
    ],
)
def test_what_can_not_be(options: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        model_of(**options)


# --- Checks, and mutants that they must notice ----------------------------------------------------

CHECKS = [
    check_golden, check_golden_halves, check_alone, check_dropped, check_overlap, check_newcomer,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_streaming(check: Any, peers: Peers) -> None:
    check(REAL, peers)


MUTANTS: dict[str, tuple[str, str, str, list[Any]]] = {
    "alpha the other way": (
        "parameters", "kept * mine + (1 - kept) * other", "(1 - kept) * mine + kept * other",
        [check_alone],
    ),
    "applied when it is sent": (
        "streaming", "if self.inner_steps >= gap:", "if self._pending is not None:",
        [check_dropped, check_overlap],
    ),
    "sent at the end": (
        "streaming", "self.inner_steps >= gap - self.schedule.overlap",
        "self.inner_steps >= gap", [check_dropped, check_overlap],
    ),
    "always the same fragment": (
        "schedule", "return step % self._fragments", "return 0", [check_golden],
    ),
    "all fragments are stepped": (
        "streaming", "pending, self._elements(fragment),", "pending, slice(None),", [check_golden],
    ),
    "all fragments are merged": (
        "streaming", "place = self._places[fragment]\n            self._parameters.merge",
        "place = slice(None)\n            self._parameters.merge", [check_golden],
    ),
    "newcomers count at once": (
        "streaming", "self._age = sync_every if self.outer.step == 0 else 0",
        "self._age = sync_every", [check_newcomer],
    ),
    "newcomers never count": ("streaming", "self._age += 1", "pass", [check_newcomer]),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_noticed(name: str, peers: Peers) -> None:
    *edit, checks = MUTANTS[name]
    mutant = Family(*edit)
    for check in checks:
        with pytest.raises((AssertionError, pytest.fail.Exception, InvalidArgumentError)):
            check(mutant, peers)
