"""Outer optimizers of models in the memory of a device: they do what they do for those of the CPU,
to the last bit."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest

from pyccl.optim import DelayedDiLoCo, DiLoCo, StreamingDiLoCo

from .conftest import Peers

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")

SHAPES = {"a": (33, 65), "b": (129,), "c": (7, 300)}
EVERY, STEPS = 6, 30
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "diloco": (DiLoCo, {}),
    "quantized": (DiLoCo, {"quantization": "int8", "error_feedback": True}),
    "streaming": (StreamingDiLoCo, {"fragments": 3, "overlap": 1}),
    "delayed": (DelayedDiLoCo, {"outer_lr": 0.5}),
}


def train(comm: Any, kind: str, device: str, dtype: Any) -> list[bytes]:
    """phi and the model behind each inner step, whose gradients are whole numbers."""
    make, options = KINDS[kind]
    rng = np.random.default_rng(comm.rank)
    model = {name: nn.Parameter(torch.ones(shape, dtype=dtype, device=device))
             for name, shape in SHAPES.items()}  # fmt: skip
    inner = torch.optim.SGD(model.values(), lr=0.25)
    opt = make(model.items(), inner, comm, sync_every=EVERY, **options)
    found = []
    for _ in range(STEPS):
        if device == "cuda":
            # Gradients that are still to come when the step is taken.
            torch.cuda._sleep(500_000)
        for one in model.values():
            whole = torch.from_numpy(rng.integers(-8, 8, one.shape))
            one.grad = whole.to(device, dtype, non_blocking=True)
        opt.step()
        found.append(opt.outer.params.tobytes())
        found += [one.detach().float().cpu().numpy().tobytes() for one in model.values()]
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", KINDS)
def test_bits_are_those_of_the_cpu(peers: Peers, kind: str, dtype: str) -> None:
    def on(device: str) -> Any:
        def run(comm: Any) -> list[bytes]:
            with torch.cuda.stream(torch.cuda.Stream()):
                return train(comm, kind, device, getattr(torch, dtype))

        return run

    on_device = peers.run(2, on("cuda"))
    on_cpu = peers.run(2, on("cpu"))
    assert on_device == on_cpu
    assert on_cpu[0][-4] == on_cpu[1][-4]  # phi
    assert on_cpu[0][0] != on_cpu[0][-4]


def test_a_scaler_leaves_out_what_overflows() -> None:
    model = nn.Linear(1, 1, bias=False).cuda()
    nn.init.constant_(model.weight, 8.0)
    inner = torch.optim.SGD(model.parameters(), lr=1.0)
    opt = DiLoCo(model.parameters(), inner, sync_every=3, outer_lr=1, outer_momentum=0)
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    fresh = []
    for number in range(6):
        opt.zero_grad()
        with torch.autocast("cuda", torch.float16):
            loss = model(torch.ones(1, 1, device="cuda")).sum()
        scaler.scale(loss * (float("inf") if number in (1, 5) else 1.0)).backward()
        before = opt.inner_steps, opt.outer.step
        scaler.step(opt)
        scaler.update()
        if (opt.inner_steps, opt.outer.step) == before:
            opt.tick()
        fresh.append(opt.last_sync.fresh)
    assert fresh == [False, False, True, False, False, True]
    assert opt.outer.params.tolist() == [4.0]
    assert model.weight.item() == 4.0
    assert scaler.get_scale() == 1.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_goes_on_bit_for_bit(kind: str, dtype: str) -> None:
    make, options = KINDS[kind]
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(16, 40), nn.Tanh(), nn.Linear(40, 4))
    start = start.to("cuda", getattr(torch, dtype))

    def made(model: Any, **more: Any) -> Any:
        inner = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
        return make(model.named_parameters(), inner, sync_every=6, **options, **more)

    def step(model: Any, opt: Any, number: int) -> None:
        points = torch.Generator().manual_seed(number)
        x = torch.randn(32, 16, generator=points).to("cuda", start[0].weight.dtype)
        opt.zero_grad()
        model(x).square().mean().backward()
        opt.step()

    model, other = start, copy.deepcopy(start)
    opt, later = made(model), made(other)
    for number in range(11):
        step(model, opt, number)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, file)
    file.seek(0)
    kept = torch.load(file, weights_only=True)
    other.load_state_dict(kept["model"])
    later.load_state_dict(kept["opt"])
    for number in range(11, 25):
        step(model, opt, number)
        step(other, later, number)
        assert opt.outer.hash() == later.outer.hash()
        assert all(map(torch.equal, model.parameters(), other.parameters()))
    assert opt.outer.step >= 3


def test_outer_parameters_are_lent_to_the_model() -> None:
    model = nn.Linear(3, 2).cuda()
    opt = DiLoCo(model.parameters(), torch.optim.SGD(model.parameters(), lr=0.5), sync_every=9)
    place = model.weight.data_ptr()
    model(torch.ones(4, 3, device="cuda")).sum().backward()
    opt.step()
    trained = model.weight.detach().clone()
    with opt.outer_params():
        assert model.weight.tolist() == opt.outer.views["0"].tolist()
        assert not torch.equal(model.weight, trained)
    assert torch.equal(model.weight, trained)
    assert model.weight.data_ptr() == place
