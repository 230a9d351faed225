"""DiLoCo without torch: peers fit one model, each on data of its own, and meet now and then.

Start `pyccl coordinator`, then this in as many terminals as you like, at any moment; kill some, and
start others. Each draws its own points of a function that no peer knows, trains for itself with
Adam, and takes an outer step with the others every --sync-every steps. The error is that of the
outer parameters, which all peers hold alike.
"""

import argparse
import time

import numpy as np

import pyccl
from pyccl.optim.numpy import DiLoCo

parser = argparse.ArgumentParser()
parser.add_argument("address", nargs="?", default="127.0.0.1:48148")
parser.add_argument("--steps", type=int, default=40, help="outer ones, of the run")
parser.add_argument("--sync-every", type=int, default=50)
parser.add_argument("--peers", type=int, default=1, help="how many to wait for at the start")
parser.add_argument("--pause", type=float, default=0.0, help="seconds more per outer step")
parser.add_argument("--seed", type=int, help="of this peer's points")
options = parser.parse_args()

WIDTH = 64


def function(x):
    return np.sin(3 * x) + 0.5 * x


def hidden(weights, x):
    return np.tanh(x[:, None] * weights["w1"] + weights["b1"])


def gradients(weights, x, y):
    """Of the mean square error."""
    h = hidden(weights, x)
    error = 2 * (h @ weights["w2"] + weights["b2"] - y) / len(x)
    back = error[:, None] * weights["w2"] * (1 - h * h)
    return {"w1": x @ back, "b1": back.sum(0), "w2": error @ h, "b2": error.sum(keepdims=True)}


random = np.random.default_rng(options.seed)
weights = {
    "w1": random.normal(0, 2, WIDTH).astype(np.float32),
    "b1": random.normal(0, 1, WIDTH).astype(np.float32),
    "w2": random.normal(0, 0.1, WIDTH).astype(np.float32),
    "b2": np.zeros(1, np.float32),
}
test = np.linspace(-2, 2, 200, dtype=np.float32)
adam = {name: (np.zeros_like(one), np.zeros_like(one)) for name, one in weights.items()}
steps = 0


def train(batch=32, rate=3e-3):
    """One inner step; Adam's state is each peer's own, and outlives outer steps."""
    global steps
    steps += 1
    x = random.uniform(-2, 2, batch).astype(np.float32)
    found = gradients(weights, x, function(x))
    for name, (first, second) in adam.items():
        first += 0.1 * (found[name] - first)
        second += 0.05 * (found[name] ** 2 - second)
        scale = np.sqrt(second / (1 - 0.95**steps)) + 1e-8
        weights[name] -= rate * first / (1 - 0.9**steps) / scale


with pyccl.connect(options.address, world_size_min=options.peers) as comm:
    outer = DiLoCo(weights, comm, sync_every=options.sync_every, outer_lr=0.7, outer_momentum=0.8)
    outer.begin_window(weights)
    print(f"{comm.peer} begins at outer step {outer.steps}", flush=True)
    while outer.steps < options.steps:
        train()
        report = outer.step(weights)
        if report.fresh:
            phi = outer.outer_params
            error = np.mean((hidden(phi, test) @ phi["w2"] + phi["b2"] - function(test)) ** 2)
            print(
                f"outer step {report.step}: {report.contributors} peers, error {error:.4f}, "
                f"state {report.hash[:8]}, {1000 * report.seconds:.1f} ms",
                flush=True,
            )
            time.sleep(options.pause)
