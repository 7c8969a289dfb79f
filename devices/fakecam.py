"""A camera that can be made to fail: ``python -m edgeunip.devices.fakecam SOCKET [options]``.

It listens on a UNIX socket, speaks :mod:`edgeunip.devices.wire`, and sends 16-bit frames of a warm body that wanders
over a noisy scene, in centikelvin. The first four pixels of each frame hold its number (:func:`stamp`). Commands come
as lines on the standard input, or all at once with their times: ``--script "2 repeat 2.5; 8 tear; 9 stop"``.

==================  ==================================================================================================
``repeat S``        send one frame again and again for S seconds, as a closed shutter or a hanging sensor does
``ffc S``           the same, and say so in the frames' flags
``silent S``        make no frame for S seconds
``tear [N]``        send only half of each of the next N frames
``corrupt [N]``     change a pixel of each of the next N frames behind its checksum
``lose [N]``        make N frames that are never sent
``resize W H``      send frames of another size from now on
``rate HZ``         send at another rate; 0 as fast as they are taken
``drop``            close every connection, and go on listening
``stop``            end
==================  ==================================================================================================

From outside: SIGSTOP makes it hang, SIGKILL kills it. It prints ``{"listening": SOCKET}`` once it can be reached, and
``{"made": N}``, the number of frames it made, when it ends by ``stop`` or SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType

import numpy as np

from edgeunip.devices import wire
from edgeunip.devices.wire import Message
from edgeunip.thermal import Counts

_PICTURES = 16
_FAST_S = 0.2  # At full speed it looks for commands and clients this often.
_SEND_S = 5.0  # A client that takes nothing for so long is dropped.


def stamp(counts: Counts, seq: int) -> None:
    """Write a frame's number into the first four pixels of ``counts``."""
    counts.reshape(-1)[:4] = [(seq >> shift) & 0xFFFF for shift in (0, 16, 32, 48)]


def read_stamp(counts: Counts) -> int:
    """Return the number that :func:`stamp` wrote."""
    return sum(int(value) << shift for value, shift in zip(counts.reshape(-1)[:4], (0, 16, 32, 48), strict=True))


def pictures(width: int, height: int) -> list[Counts]:
    """Return frames of a scene, shape (H, W), uint16, in centikelvin: 20 degC with noise, and a body of 35 degC."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[:height, :width]
    made: list[Counts] = []
    for phase in np.linspace(0, 2 * np.pi, _PICTURES, endpoint=False):
        dx, dy = x - width * (0.5 + 0.3 * np.cos(phase)), y - height * (0.5 + 0.3 * np.sin(phase))
        body = 1500 * np.exp(-(dx**2 + dy**2) / (0.02 * width * height))
        made.append((29315 + body + random.normal(0, 5, body.shape)).astype(np.uint16))
    return made


class FakeCamera:
    """Serves frames at the UNIX socket ``path``.

    Args:
        width, height: size of the frames.
        rate_hz: frames a second; 0 as fast as they are taken.
        frames: stop making frames after so many, but stay; None for no end.
    """

    def __init__(self, path: Path, *, width: int, height: int, rate_hz: float, frames: int | None = None) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink(missing_ok=True)  # What an earlier one that was killed left behind.
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._path = path
        self._clients: list[socket.socket] = []
        self._rate_hz, self._frames = rate_hz, frames
        self._pictures = pictures(width, height)
        self._script: list[tuple[float, str]] = []
        self._commands, self._typed = [sys.stdin.fileno()], b""
        self._repeated: Message | None = None
        self._repeats_until = self._silent_until = 0.0
        self._flags = self._tears = self._corrupts = 0
        self.made = 0
        self.running = True

    def run(self, script: list[tuple[float, str]]) -> None:
        """Serve until stopped. ``script``: (seconds from now, command)."""
        begin = due = time.monotonic()
        self._script = sorted(((begin + at, command) for at, command in script), reverse=True)
        try:
            while self.running:
                now = time.monotonic()
                while self._script and self._script[-1][0] <= now:
                    self.obey(self._script.pop()[1])
                self._listen(self._wait_s(due - now))
                if time.monotonic() < due:
                    continue
                due = max(due + (1 / self._rate_hz if self._rate_hz else 0), time.monotonic() - 1)
                self._make()
        finally:
            for one in (*self._clients, self._listener):
                one.close()
            self._path.unlink(missing_ok=True)

    def obey(self, command: str) -> None:
        """Do what one line says.

        Raises:
            ValueError: it is no command.
        """
        word, *values = command.split() or [""]
        actions: dict[str, Callable[..., None]] = {
            "repeat": self._repeat,
            "ffc": lambda s: self._repeat(s, flags=wire.FFC),
            "silent": lambda s: setattr(self, "_silent_until", time.monotonic() + float(s)),
            "tear": lambda n="1": setattr(self, "_tears", int(n)),
            "corrupt": lambda n="1": setattr(self, "_corrupts", int(n)),
            "lose": lambda n="1": setattr(self, "made", self.made + int(n)),
            "resize": lambda w, h: setattr(self, "_pictures", pictures(int(w), int(h))),
            "rate": lambda hz: setattr(self, "_rate_hz", float(hz)),
            "drop": self._drop,
            "stop": lambda: setattr(self, "running", False),
        }
        if word not in actions:
            raise ValueError(f"unknown command: {command!r}; known are {', '.join(actions)}")
        actions[word](*values)

    def _repeat(self, seconds: str, *, flags: int = 0) -> None:
        self._repeated, self._flags = None, flags
        self._repeats_until = time.monotonic() + float(seconds)

    def _drop(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()

    def _wait_s(self, left_s: float) -> float:
        if self._rate_hz == 0 and self._clients and not self._is_idle():
            return 0.0
        return min(max(left_s, 0.0) if self._rate_hz else _FAST_S, _FAST_S)

    def _is_idle(self) -> bool:
        return time.monotonic() < self._silent_until or self.made == self._frames

    def _listen(self, wait_s: float) -> None:
        """Take new clients and commands; wait for either."""
        ready, _, _ = select.select([self._listener.fileno(), *self._commands], [], [], wait_s)
        if self._listener.fileno() in ready:
            client, _ = self._listener.accept()
            client.settimeout(_SEND_S)
            self._clients.append(client)
        if ready and ready[-1] in self._commands:
            self._obey_typed(os.read(ready[-1], 4096))

    def _obey_typed(self, data: bytes) -> None:
        if not data:
            self._commands = []  # Nobody is left to type.
        *lines, self._typed = (self._typed + data).split(b"\n")
        for line in filter(None, lines):
            self.obey(line.decode())

    def _make(self) -> None:
        """Make the next frame and send it. At full speed none is made for nobody, so that none is lost."""
        if self._is_idle() or (self._rate_hz == 0 and not self._clients):
            return
        data = self._spoil(wire.pack(self._frame()))
        self.made += 1
        for client in list(self._clients):
            try:
                client.sendall(data)
            except OSError:  # It went away.
                self._clients.remove(client)
                client.close()

    def _frame(self) -> Message:
        message = Message(np.empty(0, np.uint16), self.made, time.monotonic_ns())
        if time.monotonic() < self._repeats_until:
            self._repeated = self._repeated or replace(message, counts=self._picture(), flags=self._flags)
            return replace(self._repeated, seq=message.seq, t_ns=message.t_ns)
        return replace(message, counts=self._picture())

    def _picture(self) -> Counts:
        counts = self._pictures[self.made % _PICTURES].copy()
        stamp(counts, self.made)
        return counts

    def _spoil(self, data: bytes) -> bytes:
        if self._tears:
            self._tears -= 1
            return data[: len(data) // 2]
        if self._corrupts:
            self._corrupts -= 1
            return data[:-1] + bytes([data[-1] ^ 1])
        return data


def _script(text: str) -> list[tuple[float, str]]:
    """Read ``"2 repeat 2.5; 8 tear"``."""
    parts = [part.split(maxsplit=1) for part in text.split(";") if part.strip()]
    return [(float(at), command) for at, command in parts]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="fakecam", description="A fake camera on a UNIX socket, for tests.")
    parser.add_argument("socket", type=Path)
    parser.add_argument("--script", type=_script, default=[], help='such as "2 repeat 2.5; 8 tear; 9 stop"')
    parser.add_argument("--rate", type=float, default=25.0, help="frames a second; 0 as fast as they are taken")
    parser.add_argument("--size", type=int, nargs=2, default=(160, 120), metavar=("W", "H"))
    parser.add_argument("--frames", type=int, help="make so many, then fall silent")
    given = parser.parse_args()
    width, height = given.size
    camera = FakeCamera(given.socket, width=width, height=height, rate_hz=given.rate, frames=given.frames)

    def stop(number: int, frame: FrameType | None) -> None:
        camera.running = False

    signal.signal(signal.SIGTERM, stop)
    print(json.dumps({"listening": str(given.socket)}), flush=True)
    camera.run(given.script)
    print(json.dumps({"made": camera.made}), flush=True)


if __name__ == "__main__":
    main()
