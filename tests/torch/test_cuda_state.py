"""The state of trainings on a device of CUDA."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from python.conftest import RunPeers, coordinator, run_peers  # noqa: E402

import pyccl  # noqa: E402

from .trainings import Training  # noqa: E402

__all__ = ["coordinator", "run_peers"]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")


@pytest.mark.parametrize("options", [{}, {"capturable": True}, {"fused": True, "amsgrad": True}])
def test_state(run_peers: RunPeers, options: dict[str, Any]) -> None:
    def train(comm: pyccl.Communicator) -> list[bytes]:
        with torch.cuda.stream(torch.cuda.Stream()):
            training = Training(comm.rank, device="cuda", **options)
            if comm.rank == 0:
                for _ in range(4):
                    training.step()
            places = [one.data_ptr() for one in training.model.parameters()]
            comm.sync(training.state)
            assert training.state.revision == 4
            assert training.scheduler.last_epoch == 4
            assert places == [one.data_ptr() for one in training.model.parameters()]
            for _ in range(3):
                training.step()
            state = training.optimizer.state_dict()["state"]
            kept = [one.cpu().numpy().tobytes() for each in state.values() for one in each.values()]
            return training.weights() + kept

    found = run_peers(2, train)
    assert found[0] == found[1]
