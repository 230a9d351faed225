"""Fixtures and options of the simulator's tests."""

from __future__ import annotations

from functools import partial

import pytest
from sim import simulator
from sim.simulator import Simulate


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--seeds",
        type=int,
        default=300,
        help="seeds of each simulated world; give the folder on the command line",
    )


@pytest.fixture(scope="session")
def seeds(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--seeds", default=300))


@pytest.fixture(scope="session")
def simulate() -> Simulate:
    path = simulator.find()
    if path is None:
        pytest.skip("pyccl_sim is not built: configure with -DPYCCL_TESTS=ON, or set PYCCL_SIM")
    return partial(simulator.run, path)
