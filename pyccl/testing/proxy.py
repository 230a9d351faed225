"""A TCP proxy between peers that breaks connections on command or by the clock."""

from __future__ import annotations

import contextlib
import functools
import random
import selectors
import socket
import struct
import threading
import time
from types import TracebackType

from pyccl.errors import InvalidArgumentError

_READ_BYTES = 1 << 18
# A close with this option discards what is unsent and sends a reset.
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class _Pair:
    """A connection that is passed on: its two sockets, and for each what waits to be sent to it.

    A socket is read only while nothing waits for the other one, so nothing piles up here.
    """

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.other = {client: server, server: client}
        self.waiting: dict[socket.socket, memoryview] = {}


class FaultProxy:
    """Listens on an address of its own and passes every connection on to `target` ("host:port").

    Peers that the others shall reach through it listen at the target and advertise the proxy:

        target = f"127.0.0.1:{free_port()}"
        with FaultProxy(target, reset_every=0.05) as proxy:
            comm = pyccl.connect(address, listen=target, advertise=proxy.address)

    reset_every: seconds between resets of one open connection, drawn at random with `seed`; None:
        only reset() does that.
    """

    def __init__(self, target: str, *, reset_every: float | None = None, seed: int = 0) -> None:
        host, colon, port = target.rpartition(":")
        if not colon or not port.isdigit():
            raise InvalidArgumentError(f"target is {target!r}, but must be 'host:port'")
        self.resets = 0
        """Connections that were broken so far."""
        self._target = (host, int(port))
        self._random = random.Random(seed)
        self._reset_every = reset_every
        self._pairs: list[_Pair] = []
        self._asked_resets = 0
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._wake_rx, self._wake_tx = socket.socketpair()
        self._selector.register(self._wake_rx, selectors.EVENT_READ, self._woken)
        host, port = self._listener.getsockname()
        self.address = f"{host}:{port}"
        """Where it listens."""
        self._thread = threading.Thread(target=self._run, name="pyccl-proxy", daemon=True)
        self._thread.start()

    def reset(self) -> None:
        """Breaks one connection that is open, if there is one."""
        self._asked_resets += 1
        self._wake_tx.send(b"r")

    def close(self) -> None:
        """Breaks all connections and ends. May be called twice."""
        if not self._closing:
            self._closing = True
            self._wake_tx.send(b"c")
            self._thread.join(10.0)
            self._wake_tx.close()
            self._wake_rx.close()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        period = self._reset_every
        next_reset = time.monotonic() + period if period else None
        while not self._closing:
            bound = None if next_reset is None else max(0.0, next_reset - time.monotonic())
            for key, events in self._selector.select(bound):
                key.data(key.fileobj, events)
            if period and next_reset is not None and time.monotonic() >= next_reset:
                next_reset += period
                self._reset_one()
        while self._pairs:
            self._drop(self._pairs[-1])
        self._listener.close()
        self._selector.close()

    def _woken(self, _socket: socket.socket, _events: int) -> None:
        self._wake_rx.recv(1)
        while self._asked_resets > 0:
            self._asked_resets -= 1
            self._reset_one()

    def _reset_one(self) -> None:
        if self._pairs:
            self.resets += 1
            self._drop(self._random.choice(self._pairs))

    def _accept(self, _socket: socket.socket, _events: int) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target, timeout=5.0)
        except OSError:
            client.close()
            return
        pair = _Pair(client, server)
        self._pairs.append(pair)
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            self._want(pair, end, selectors.EVENT_READ)

    def _move(self, pair: _Pair, end: socket.socket, events: int) -> None:
        if end.fileno() < 0:
            return  # dropped by an event before this one
        try:
            if events & selectors.EVENT_WRITE:
                self._send(pair, end, pair.waiting.pop(end))
            if events & selectors.EVENT_READ and pair.other[end] not in pair.waiting:
                data = end.recv(_READ_BYTES)
                if not data:
                    self._drop(pair)
                    return
                self._send(pair, pair.other[end], memoryview(data))
        except BlockingIOError:
            return
        except OSError:
            self._drop(pair)

    def _send(self, pair: _Pair, end: socket.socket, data: memoryview) -> None:
        sent = 0
        with contextlib.suppress(BlockingIOError):
            sent = end.send(data)
        if sent < len(data):
            pair.waiting[end] = data[sent:]
        for one, other in pair.other.items():
            wanted = 0 if other in pair.waiting else selectors.EVENT_READ
            wanted |= selectors.EVENT_WRITE if one in pair.waiting else 0
            self._want(pair, one, wanted)

    def _want(self, pair: _Pair, end: socket.socket, events: int) -> None:
        # A selector knows no interest in nothing: such a socket is out of it for the time.
        registered = end in self._selector.get_map()
        if registered and self._selector.get_key(end).events == events:
            return
        if events and registered:
            self._selector.modify(end, events, functools.partial(self._move, pair))
        elif events:
            self._selector.register(end, events, functools.partial(self._move, pair))
        elif registered:
            self._selector.unregister(end)

    def _drop(self, pair: _Pair) -> None:
        self._pairs.remove(pair)
        for end in pair.other:
            self._want(pair, end, 0)
            end.close()
