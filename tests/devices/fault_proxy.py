"""A TCP proxy on 127.0.0.1 that fails on command: black hole, RST, half-close."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading


class FaultProxy:
    """Passes connections on to ``port``; ``self.port`` is where it listens.

    ``hole`` passes nothing on and answers nobody while it is True. :meth:`reset` cuts every connection with an RST,
    :meth:`half_close` ends what the clients receive and leaves the rest open.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.hole = False
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._half: set[socket.socket] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        self._listener.close()
        for pair in self._pairs:
            for one in pair:
                one.close()

    def reset(self) -> None:
        for client, server in self._pairs:
            with contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            server.close()

    def half_close(self) -> None:
        for client, server in self._pairs:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_WR)
            self._half.add(server)

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._pairs = [pair for pair in self._pairs if all(one.fileno() >= 0 for one in pair)]
            if self.hole:
                self._stop.wait(0.02)
                continue
            ways = {a: b for pair in self._pairs for a, b in (pair, pair[::-1])}
            try:
                ready, _, _ = select.select([self._listener, *ways], [], [], 0.02)
            except (OSError, ValueError):  # Closed meanwhile.
                continue
            for one in ready:
                if one is self._listener:
                    self._accept()
                elif not self.hole:
                    self._pass(one, ways[one])

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        self._pairs.append((client, server))

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        try:
            data = one.recv(1 << 16)
            if data and one not in self._half:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            one.close()
            other.close()
