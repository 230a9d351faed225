"""Files that are no sound snapshots: all are found out, told, and leave the memory alone."""

from __future__ import annotations

import hashlib
import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import zstandard

import pyccl
from pyccl import _state_file
from pyccl._state_file import read, read_header

from .state_files import DIGEST, PIECE, SMALL, Memory, load, noise, save


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.pyccl"


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state_file, "PIECE_BYTES", PIECE)


def refused(path: Path, text: str) -> None:
    """read() raises this, names the file, and leaves the memory alone."""
    memory = Memory()
    with pytest.raises(pyccl.StateFileError, match=text) as caught:
        read(path, memory.prepare)
    assert str(caught.value).startswith(f"{path}: ")
    assert memory.untouched


def frames(data: bytes) -> tuple[bytes, list[bytes], bytes]:
    """A file taken apart: all before the frames, the frames with their lengths, the end mark."""
    at = 32 + struct.unpack_from("<Q", data, 8)[0]
    head, found = data[:at], []
    while data[at : at + 8] != b"PYCCLEND":
        end = at + 4 + struct.unpack_from("<I", data, at)[0]
        found.append(data[at:end])
        at = end
    return head, found, data[at:]


def sealed(head: bytes, pieces: list[bytes], more: int = 0) -> bytes:
    """A file whose last digest is right, whatever else is wrong. It says it has `more` bytes."""
    body = head + b"".join(pieces) + b"PYCCLEND"
    body += struct.pack("<Q", len(body) + 24 + more)
    return body + hashlib.blake2b(body, digest_size=16).digest()


def head_with(fields: Any) -> bytes:
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    head = b"PYCCLST1" + struct.pack("<Q", len(text)) + text
    return head + hashlib.blake2b(head, digest_size=16).digest()


def framed(frame: bytes) -> bytes:
    return struct.pack("<I", len(frame)) + frame


@pytest.mark.usefixtures("short_pieces")
def test_every_changed_byte_is_noticed(path: Path) -> None:
    save(path, SMALL)
    data = path.read_bytes()
    head, _, _ = frames(data)
    for at in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            wrong = bytearray(data)
            wrong[at] ^= mask
            path.write_bytes(wrong)
            refused(path, "is damaged|is truncated|is no snapshot")
            if at < len(head):
                with pytest.raises(pyccl.StateFileError, match="is "):
                    read_header(path)
            else:
                read_header(path)


@pytest.mark.usefixtures("short_pieces")
def test_every_cut_and_every_addition_is_noticed(path: Path) -> None:
    save(path, SMALL)
    data = path.read_bytes()
    for count in range(len(data)):
        path.write_bytes(data[:count])
        refused(path, f"is truncated: ends at byte {count} of at least ")
    for more in (b"\0", data, data[-32:]):
        path.write_bytes(data + more)
        refused(path, f"is damaged: it goes on after its end at byte {len(data)}")
    head, pieces, end = frames(data)
    path.write_bytes(head + b"".join(pieces) + pieces[0] + end)
    refused(path, "is damaged: it goes on where it should end")
    path.write_bytes(sealed(head, pieces, more=1))
    refused(path, f"is damaged: it has {len(data)} bytes, but {len(data) + 1} by its end mark")
    for gap in (1, 8, 100):
        path.write_bytes(data[:200] + data[200 + gap :])
        refused(path, "is damaged|is truncated")


@pytest.mark.usefixtures("short_pieces")
def test_pieces_that_changed_places_are_noticed(path: Path) -> None:
    save(path, SMALL)
    head, pieces, end = frames(path.read_bytes())
    assert len(pieces) == 6
    for i in range(len(pieces)):
        for j in range(i):
            if pieces[i] == pieces[j]:  # both of zeros
                continue
            other = list(pieces)
            other[i], other[j] = other[j], other[i]
            path.write_bytes(head + b"".join(other) + end)
            refused(path, "is damaged")
    # Those of another file of the same tensors, under this one's header and the other way round.
    save(path, SMALL, revision=8)
    other_head, other_pieces, other_end = frames(path.read_bytes())
    assert other_pieces == pieces
    path.write_bytes(other_head + b"".join(pieces) + end)
    refused(path, "is damaged")
    path.write_bytes(head + b"".join(pieces) + other_end)
    refused(path, "is damaged")


@pytest.mark.usefixtures("short_pieces")
def test_damage_names_its_place(path: Path) -> None:
    save(path, SMALL)
    data = path.read_bytes()
    head, pieces, _ = frames(data)
    for i, text in [(0, "piece 0 of tensor 'w'"), (5, "piece 1 of tensor 'b\u00fc\u4e2d'")]:
        at = len(head) + sum(map(len, pieces[: i + 1])) - 1  # of its checksum
        wrong = bytearray(data)
        wrong[at] ^= 1
        path.write_bytes(wrong)
        refused(path, f"is damaged: {text} can't be unpacked")
        path.write_bytes(data[:at])
        refused(path, f"is truncated: ends at byte {at} of at least {at + 1}, in {text}")
    # Of two faults the first, though the second, a length, is found by a mere look.
    wrong = bytearray(data)
    wrong[len(head) + len(pieces[0]) - 1] ^= 1
    wrong[len(head) + len(pieces[0]) + 3] = 0xFF
    path.write_bytes(wrong)
    refused(path, "piece 0 of tensor 'w' can't be unpacked")
    wrong[len(head) + len(pieces[0]) - 1] ^= 1
    path.write_bytes(wrong)
    refused(path, "piece 1 of tensor 'w' has [0-9]+ bytes, more than it can have")


def test_what_is_no_snapshot(path: Path) -> None:
    for data in (b"x", b"PYCCLST2" + bytes(100), noise(1000), b"\x80\x02}q\x00."):
        path.write_bytes(data)
        refused(path, "is no snapshot of pyccl")
    with pytest.raises(pyccl.StateFileError, match="is no snapshot") as caught:
        read_header(path)
    assert isinstance(caught.value, pyccl.PycclError)
    assert isinstance(caught.value, ValueError)
    path.unlink()
    for function in (read_header, lambda path: read(path, lambda _: [])):
        with pytest.raises(FileNotFoundError):
            function(path)


def test_a_later_version_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_state_file, "VERSION", 2)
    save(path, SMALL)
    monkeypatch.undo()
    refused(path, "was written by a later version of pyccl: its format is 2, .* reads up to 1")
    # It need not have anything else in common.
    path.write_bytes(head_with({"version": 3}))
    refused(path, "was written by a later version")


FIELDS: dict[str, Any] = {
    "version": 1,
    "revision": 0,
    "digest": DIGEST,
    "piece_bytes": PIECE,
    "tensors": [{"name": "w", "dtype": "f32", "shape": [2], "bytes": 8}],
}


def tensor_with(**changed: Any) -> dict[str, Any]:
    return {**FIELDS, "tensors": [{**FIELDS["tensors"][0], **changed}]}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (b"[" * 100_000, "recursion"),
        (b"{", "Expecting"),
        (b"\xff\xfe\xfd", "decode"),
        (b'{"version": 1' + b"0" * 5000 + b"}", "digit"),
        ([], "list"),
        ({}, "'version' is missing"),
        ({**FIELDS, "version": "1"}, "version is '1'"),
        ({**FIELDS, "revision": -1}, "revision is -1"),
        ({**FIELDS, "revision": 1 << 64}, "revision is 18446744073709551616"),
        ({**FIELDS, "revision": True}, "revision is True"),
        ({**FIELDS, "digest": "0" * 31}, "32 hex digits"),
        ({**FIELDS, "digest": DIGEST.upper()}, "32 hex digits"),
        ({**FIELDS, "piece_bytes": 0}, "piece_bytes is 0"),
        ({**FIELDS, "piece_bytes": (4 << 20) + 1}, "piece_bytes is 4194305"),
        ({**FIELDS, "tensors": 3}, "int"),
        ({**FIELDS, "tensors": [3]}, "int"),
        ({**FIELDS, "tensors": FIELDS["tensors"] * 2}, "two tensors have the name 'w'"),
        (tensor_with(name=3), "must be text"),
        (tensor_with(dtype=None), "must be text"),
        (tensor_with(shape=2), "int"),
        (tensor_with(shape=[-2]), "a length of tensor 'w' is -2"),
        (tensor_with(shape=[-2, -1]), "a length of tensor 'w' is -2"),
        (tensor_with(shape=[2.0]), r"a length of tensor 'w' is 2\.0"),
        (tensor_with(shape=[1] * 65), "65 dimensions"),
        (tensor_with(shape=[3]), r"of shape \(3,\) can't have 8 bytes"),
        (tensor_with(shape=[0]), r"of shape \(0,\) can't have 8 bytes"),
        (tensor_with(bytes=0), "can't have 0 bytes"),
        (tensor_with(bytes=-8), "bytes of tensor 'w' is -8"),
        (tensor_with(bytes=1 << 63), "bytes of tensor 'w' is"),
    ],
)
def test_headers_that_cannot_be(path: Path, fields: Any, text: str) -> None:
    path.write_bytes(sealed(head_with(fields), []))
    refused(path, f"is damaged: its header can't be: .*{text}")
    with pytest.raises(pyccl.StateFileError, match=text):
        read_header(path)


def test_a_header_may_say_more_than_is_known(path: Path) -> None:
    frame = framed(zstandard.ZstdCompressor().compress(b"12345678"))
    path.write_bytes(sealed(head_with({**tensor_with(unit="m"), "by": "somebody"}), [frame]))
    assert load(path) == {"w": b"12345678"}


def test_a_file_that_promises_too_much_costs_nothing(path: Path) -> None:
    """Sizes come before memory: 64 MiB in a frame, an exbibyte in a header."""
    huge = 1 << 60
    bomb = framed(zstandard.ZstdCompressor().compress(bytes(64 << 20)))
    promises = [
        (tensor_with(shape=[huge], bytes=huge), [bomb], "more than it can have|instead of 64"),
        (tensor_with(), [bomb], "more than it can have"),
        (tensor_with(shape=[huge], bytes=huge), [], "is truncated|is damaged"),
    ]
    tracemalloc.start()
    for fields, pieces, text in promises:
        path.write_bytes(sealed(head_with(fields), pieces))
        view = memoryview(bytearray())
        # prepare() decides about memory; without the check of its size it gets nowhere here.
        with pytest.raises((pyccl.StateFileError, pyccl.InvalidArgumentError)):
            read(path, lambda _, view=view: [view])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_state_file, "_check_memory", lambda *_, **__: None)
            with pytest.raises(pyccl.StateFileError, match=text):
                read(path, lambda _, view=view: [view])
    path.write_bytes(b"PYCCLST1" + struct.pack("<Q", huge) + bytes(100))
    refused(path, f"is damaged: its header has {huge} bytes")
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_frames_must_be_what_their_piece_needs(path: Path) -> None:
    """Files whose digests are right: the frames are checked by themselves."""
    plain = zstandard.ZstdCompressor()
    data = b"12345678"
    unsized = zstandard.ZstdCompressor(write_content_size=False)
    summed = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(data))
    summed[-1] ^= 1
    liar = bytearray(plain.compress(b"1234567"))
    assert liar[5] == 7
    liar[5] = 8
    # A window of 128 MiB, for 8 bytes in one block that ends too early.
    wide = bytes.fromhex("28b52ffd 80 88 08000000 410000") + data[:-1]
    wrong = [
        (wide, "too much memory"),
        (plain.compress(data + b"9"), "has 9 bytes instead of 8"),
        (plain.compress(b""), "has 0 bytes instead of 8"),
        (unsized.compress(data), "has -1 bytes instead of 8"),
        (plain.compress(data)[:-1], "can't be unpacked"),
        (plain.compress(data) + b"9", "can't be unpacked"),
        (plain.compress(data) * 2, "can't be unpacked"),
        (bytes(summed), "can't be unpacked"),
        (bytes(liar), "can't be unpacked"),
        (b"", "can't be unpacked"),
        (data, "can't be unpacked"),
    ]
    for frame, text in wrong:
        path.write_bytes(sealed(head_with(FIELDS), [framed(frame)]))
        refused(path, f"is damaged: piece 0 of tensor 'w' .*({text})")
    path.write_bytes(sealed(head_with(FIELDS), [framed(plain.compress(data))]))
    assert load(path) == {"w": data}
