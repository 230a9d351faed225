"""The ways of training that are held against each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyccl.optim
from pyccl.quantization import Quantization

ALONE, DATA_PARALLEL = "alone", "data parallel"


class Method(NamedTuple):
    """kind: ALONE, DATA_PARALLEL, or a class of pyccl.optim. options: of that class. dies: one peer
    is killed in the middle of the run."""

    name: str
    text: str
    kind: str
    options: dict[str, Any]
    peers: int = 4
    dies: bool = False

    @property
    def missing(self) -> bool:
        """This pyccl has no such optimizer."""
        return self.kind not in (ALONE, DATA_PARALLEL) and not hasattr(pyccl.optim, self.kind)

    @property
    def contributors(self) -> set[int]:
        """How many there may be in one step."""
        if self.kind == "NoLoCo":
            return {2}
        return {self.peers, self.peers - 1} if self.dies else {self.peers}


def _method(
    kind: str, name: str, text: str, peers: int = 4, dies: bool = False, **options: Any
) -> Method:
    return Method(name, text, kind, {"sync_every": 20, **options}, peers, dies)


def _diloco(
    name: str, text: str, outer_lr: float = 0.7, outer_momentum: float = 0.9, **more: Any
) -> Method:
    return _method("DiLoCo", name, text, outer_lr=outer_lr, outer_momentum=outer_momentum, **more)


def _streaming(overlap: int, alpha: float) -> Method:
    return _method(
        "StreamingDiLoCo",
        f"streaming-{overlap}-{alpha:g}",
        f"Streaming, 2 fragments, overlap {overlap}, alpha {alpha:g}",
        fragments=2,
        overlap=overlap,
        merge_alpha=alpha,
        outer_lr=0.7,
        outer_momentum=0.9,
    )


def _delayed(outer_lr: float, outer_momentum: float, **more: Any) -> Method:
    rates = f"{outer_lr:g}", f"{outer_momentum:g}"
    return _method(
        "DelayedDiLoCo",
        "delayed-" + "-".join(rates),
        "a window late, " + "/".join(rates),
        outer_lr=outer_lr,
        outer_momentum=outer_momentum,
        **more,
    )


METHODS = [
    Method("data-parallel", "data parallel: a mean of gradients each step", DATA_PARALLEL, {}),
    Method("alone", "one peer alone", ALONE, {}, peers=1),
    *(_diloco(f"diloco-{h}", f"DiLoCo, H {h}", sync_every=h) for h in (10, 20, 50, 100)),
    _diloco("heavy-ball", "DiLoCo with heavy ball", nesterov=False),
    _diloco("fedavg", "FedAvg: outer lr 1, no momentum", outer_lr=1.0, outer_momentum=0.0),
    _diloco("int8", "DiLoCo in int8", quantization="int8"),
    *(
        _diloco(
            f"fp4-{block}",
            f"DiLoCo in fp4 E3M0, blocks of {block}",
            quantization=Quantization("fp4_e3m0", block=block),
        )
        for block in (1024, 64)
    ),
    _diloco(
        "fp4-1024-feedback",
        "... of 1024, with error feedback",
        quantization=Quantization("fp4_e3m0", block=1024),
        error_feedback=True,
    ),
    _streaming(0, 0.0),
    _streaming(1, 0.0),
    _streaming(1, 0.5),
    _streaming(5, 0.5),
    _delayed(0.7, 0.0),
    _delayed(0.4, 0.5),
    _delayed(0.2, 0.9),
    _delayed(0.7, 0.9, allow_unstable=True),
    _method("CO2", "co2", "CO2, its defaults: 0.5/0.2"),
    _method(
        "CO2", "co2-1-0.2", "CO2, 1/0.2", outer_lr=1.0, outer_momentum=0.2, allow_unstable=True
    ),
    _method("EDiT", "edit", "EDiT, its defaults: 0.7/0.8"),
    _method(
        "NoLoCo", "noloco", "NoLoCo, 8 peers, 0.5/0.7/0.7", peers=8, alpha=0.5, beta=0.7, gamma=0.7
    ),
    _diloco(
        "heavy-ball-8",
        "DiLoCo with heavy ball, 8 peers, 0.7/0.5",
        outer_lr=0.7,
        outer_momentum=0.5,
        nesterov=False,
        peers=8,
    ),
    _diloco("death", "DiLoCo, one of 4 is killed halfway", dies=True),
]
