"""What outer steps tell of peers that do not train alike."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Peers
from .family import REAL
from .training import steps_of

torch = pytest.importorskip("torch")

from .test_diloco_peers import PLAN, model_of  # noqa: E402


def test_how_alike_peers_have_trained(peers: Peers, caplog: pytest.LogCaptureFixture) -> None:
    def train(comm: Any) -> Any:
        weight, opt = model_of(REAL, comm, diagnostics=True)
        opt.loss = 2.0 + comm.rank
        found = []
        for step in steps_of(opt, weight, PLAN, comm.rank, range(6)):
            if step == 3 and comm.rank == 1:
                opt.outer.momentum[0] += 1
            if step % 2:
                found.append(opt.last_sync.consistency)
        return found

    one, other = peers.run(2, train)
    assert one == other
    assert [part.losses for part in one] == [(2.0, 3.0)] * 3
    assert all(-1 <= part.cosine <= 1 for part in one)
    assert any("rank 1) held other bits of outer step" in text for text in caplog.messages)
