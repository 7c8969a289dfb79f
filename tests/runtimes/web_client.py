"""Clients of the live page without a browser: one request, raw bytes, a viewer of the stream."""

import http.client
import json
import socket
import struct
import time


def port_of(sink):
    return int(sink.url.rsplit(":", 1)[1].strip("/"))


def get(sink, path="/", method="GET", *, body=None, address="127.0.0.1", **headers):
    """One request; returns (status, headers by lower-case name, body)."""
    connection = http.client.HTTPConnection(address, port_of(sink), timeout=5)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def exchange(sink, request, timeout_s=5.0):
    """Send raw bytes; return all that comes until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", port_of(sink)), timeout_s) as raw:
        raw.sendall(request)
        return all_of(raw)


def all_of(raw):
    parts = []
    try:
        while part := raw.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def own_address():
    """An address of this machine that is not a loopback one; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks which way it would go
        except OSError:
            return None
        return probe.getsockname()[0]


def ask(sink, path="/stream", *, receive_buffer=None):
    """A raw connection that has sent a request and reads nothing."""
    raw = socket.socket()
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.settimeout(5)
    raw.connect(("127.0.0.1", port_of(sink)))
    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port_of(sink)}\r\n\r\n".encode())
    return raw


class Viewer:
    """A page without a browser: reads packets of the stream."""

    def __init__(self, sink, *, camera=0, address="127.0.0.1", **headers):
        self._connection = http.client.HTTPConnection(address, port_of(sink), timeout=5)
        self._connection.request("GET", f"/stream?camera={camera}", headers=headers)
        self.reply = self._connection.getresponse()
        self.status = self.reply.status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.reply.close()
        self._connection.close()

    def next(self):
        """The next packet's numbers, with ``waited`` ms and ``size`` bytes."""
        waited, *sizes = struct.unpack(">4I", self._read(16))
        body = self._read(sum(sizes))
        return json.loads(body[: sizes[0]]) | {"waited": waited, "size": 16 + len(body)}

    def _read(self, number):
        data = self.reply.read(number)
        if len(data) < number:
            raise EOFError
        return data


def eventually(check, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < end
        time.sleep(0.01)
