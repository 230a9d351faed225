"""What the tests of snapshots have in common: states, and memory to fill with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyccl._state_file import Header, TensorInfo, read, write

DIGEST = "0123456789abcdef" * 2
PIECE = 64

Tensors = dict[str, bytes]


def header_of(tensors: Tensors, revision: int = 7) -> Header:
    infos = (TensorInfo(name, "u8", (len(one),), len(one)) for name, one in tensors.items())
    return Header(revision, DIGEST, tuple(infos))


def save(path: Path, tensors: Tensors, revision: int = 7) -> int:
    return write(path, header_of(tensors, revision), [memoryview(b) for b in tensors.values()])


class Memory:
    """What read() fills; nothing but 0xAA before."""

    def __init__(self) -> None:
        self.arrays: list[bytearray] = []

    def prepare(self, header: Header) -> Sequence[memoryview]:
        self.arrays = [bytearray(b"\xaa" * one.bytes) for one in header.tensors]
        return [memoryview(one) for one in self.arrays]

    @property
    def untouched(self) -> bool:
        return all(one.count(0xAA) == len(one) for one in self.arrays)


def load(path: Path) -> Tensors:
    memory = Memory()
    header = read(path, memory.prepare)
    pairs = zip(header.tensors, memory.arrays, strict=True)
    return {one.name: bytes(array) for one, array in pairs}


def noise(count: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(count)


SMALL: Tensors = {"w": noise(3 * PIECE + 5), "nothing": b"", "b\u00fc\u4e2d": bytes(2 * PIECE)}
