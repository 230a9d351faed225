"""How far quantized averages are from the exact ones: by pyccl's peers, and by a ring that rounds
again at every hop, simulated."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

import pyccl
from pyccl import Quantization

Array = NDArray[np.float32]
Wide = NDArray[np.float64]

METHODS = ("direct", "ring", "re-quantizing ring")
_LIMIT_SECONDS = 300.0


@dataclass(frozen=True)
class Error:
    """Of one method, codec and number of peers."""

    codec: str
    peers: int
    method: str
    average_rms: float
    """Of the exact average: what errors are relative to."""
    rms: float
    largest: float
    once_rms: float
    """The error of the exact average, rounded once by the same codec."""
    wire_ratio: float
    """Of the bytes sent to those of f32."""

    @property
    def relative_rms(self) -> float:
        return self.rms / self.average_rms

    @property
    def relative_largest(self) -> float:
        return self.largest / self.average_rms

    @property
    def times_once(self) -> float:
        """How many times the error of a single rounding."""
        return self.rms / self.once_rms

    def to_json(self) -> dict[str, Any]:
        names = ("relative_rms", "relative_largest", "times_once")
        return {**asdict(self), **{name: getattr(self, name) for name in names}}


def inputs_of(peers: int, elements: int, alike: float, seed: int) -> list[Array]:
    """What each peer contributes: N(0, 1), of whose variance all share the part `alike`."""

    def normal(number: int) -> Wide:
        return np.random.default_rng([seed, number]).standard_normal(elements)

    shared = np.sqrt(alike) * normal(0)
    own = np.sqrt(1 - alike)
    return [(shared + own * normal(1 + rank)).astype(np.float32) for rank in range(peers)]


def measure(
    codecs: Sequence[str], peers: int, elements: int, alike: float, seed: int
) -> list[Error]:
    """All methods at one number of peers."""
    inputs = inputs_of(peers, elements, alike, seed)
    exact = np.zeros(elements)
    for x in inputs:
        exact += x
    exact /= peers
    outcomes = _by_pyccl(inputs, [(codec, by) for codec in codecs for by in METHODS[:2]])
    errors = []
    for codec in codecs:
        q = Quantization(codec)  # type: ignore[arg-type]
        once = _rms(q.rounded(exact.astype(np.float32))[0] - exact)
        ratio = q.wire_bytes(elements) / (4 * elements)
        outcomes[codec, METHODS[2]] = requantized(inputs, q), ratio
        for method in METHODS:
            average, ratio = outcomes[codec, method]
            off = average - exact
            largest = float(np.abs(off).max())
            errors.append(Error(codec, peers, method, _rms(exact), _rms(off), largest, once, ratio))
    return errors


def requantized(inputs: Sequence[Array], q: Quantization) -> Array:
    """The average by a ring as PCCL (Prime Intellect) has it: what a peer passes on, its partial
    sum, is quantized before each of the n - 1 hops, and the finished sum once more for its way to
    all. With our codecs and blocks instead of its one scale per share, so that the methods differ
    in nothing but where they round."""
    peers, count = len(inputs), inputs[0].size
    result = np.empty(count, np.float32)
    shares = [count * i // peers // q.block * q.block for i in range(peers)] + [count]
    for first in range(peers):
        share = slice(shares[first], shares[first + 1])
        partial = inputs[first][share].copy()
        for hop in range(1, peers):
            q.rounded(partial, out=partial)
            partial += inputs[(first + hop) % peers][share]
        q.rounded(partial, out=result[share])
    return result / np.float32(peers)


def _by_pyccl(
    inputs: list[Array], kinds: list[tuple[str, Any]]
) -> dict[tuple[str, str], tuple[Array, float]]:
    """Averages of real peers, on threads of this process, and the ratio of bytes sent; by codec and
    algorithm."""
    peers = len(inputs)
    outcomes: dict[tuple[str, str], tuple[Array, float]] = {}
    marks: list[list[int]] = [[] for _ in inputs]
    faults: list[BaseException] = []

    def peer(address: str) -> None:
        try:
            with pyccl.connect(
                address,
                world_size_min=peers,
                timeout=_LIMIT_SECONDS,
                operation_timeout=_LIMIT_SECONDS,
            ) as comm:
                out = np.empty_like(inputs[comm.rank])
                for codec, by in kinds:
                    info = comm.all_reduce(
                        inputs[comm.rank], op="avg", out=out, algorithm=by, quantization=codec
                    )
                    marks[comm.rank].append(hash(out.tobytes()))
                    if comm.rank == 0:
                        outcomes[codec, by] = out.copy(), info.wire_ratio
                comm.barrier()
        except BaseException as fault:
            faults.append(fault)

    with pyccl.Coordinator("127.0.0.1:0") as coordinator:
        threads = [
            threading.Thread(target=peer, args=(coordinator.address,), daemon=True) for _ in inputs
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(2 * _LIMIT_SECONDS)
    if faults:
        raise faults[0]
    if any(one != marks[0] for one in marks):
        raise RuntimeError(f"{peers} peers don't hold the same bits")
    return outcomes


def _rms(x: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def relative_table(errors: Iterable[Error]) -> Table:
    """Errors in percent of the exact average's rms."""
    table = Table(title="error in % of the exact average's rms: rms (x one rounding), largest")
    return _table(
        table,
        errors,
        lambda e: (
            f"{1e2 * e.relative_rms:.3f} ({e.times_once:.2f}), {1e2 * e.relative_largest:.2f}"
        ),
    )


def absolute_table(errors: Iterable[Error]) -> Table:
    """Errors as they are, of N(0, 1) contributions."""
    table = Table(title="error in 1e-3: rms, largest")
    return _table(table, errors, lambda e: f"{1e3 * e.rms:.3f}, {1e3 * e.largest:.2f}")


def _table(table: Table, errors: Iterable[Error], text: Any) -> Table:
    for header in ("codec", "peers", "average's rms", *METHODS, "sent, of f32"):
        table.add_column(header, justify="left" if header == "codec" else "right")
    rows: dict[tuple[str, int], list[Error]] = {}
    for error in errors:
        rows.setdefault((error.codec, error.peers), []).append(error)
    previous = ""
    for (codec, peers), row in rows.items():
        if previous not in ("", codec):
            table.add_section()
        shown = "" if codec == previous else codec
        sent = ", ".join(f"{one.wire_ratio:.3f}" for one in row)
        figures = (text(one) for one in row)
        table.add_row(shown, str(peers), f"{row[0].average_rms:.4f}", *figures, sent)
        previous = codec
    return table


def draw(errors: Sequence[Error], file: Path) -> None:
    """One picture for each codec: the relative rms error over the number of peers, by method."""
    import matplotlib

    matplotlib.use("Agg")  # no window, no display
    from matplotlib import pyplot

    codecs = list(dict.fromkeys(error.codec for error in errors))
    columns = min(4, len(codecs))
    rows = -(-len(codecs) // columns)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(3.5 * columns, 3 * rows), squeeze=False, layout="constrained"
    )
    for axes in grid.flat[len(codecs) :]:
        axes.set_visible(False)
    for codec, axes in zip(codecs, grid.flat, strict=False):
        for method in METHODS:
            found = [one for one in errors if (one.codec, one.method) == (codec, method)]
            percents = [100 * one.relative_rms for one in found]
            axes.plot([one.peers for one in found], percents, marker="o", label=method)
        peers = sorted({one.peers for one in errors})
        axes.set_xscale("log", base=2)
        axes.set_xticks(peers, [str(n) for n in peers])
        axes.set_ylim(bottom=0)
        axes.set_title(codec)
        axes.grid(visible=True, alpha=0.3)
    figure.supxlabel("peers")
    figure.supylabel("rms error, % of the average's rms")
    grid.flat[0].legend(fontsize="small")
    figure.savefig(file, dpi=150)
    pyplot.close(figure)
