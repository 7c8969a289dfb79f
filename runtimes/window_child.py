"""The process that owns the window: when the display goes, X ends the process that talks to it.

It speaks over the socket whose number is its argument. It sends ``!MESSAGE`` when there is no window, or one
``>`` and then a request each time it can show another picture: camera, width and height to fit into. It gets, for
each request, camera, width, height and the picture's red, green and blue. Standard library only: it starts at once.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

REQUEST = struct.Struct("!BHH")
PICTURE = struct.Struct("!BHH")
_GROUND = "#101014"
_MARGIN = 32  # pixels for a camera's name


class _Window:
    """One window with a pane a camera, side by side."""

    def __init__(self, tk: Any, root: Any, connection: socket.socket, names: list[str]) -> None:
        self._tk, self._root, self._connection, self._names = tk, root, connection, names
        self._buffer = bytearray()
        self._images: dict[int, Any] = {}
        self._shown: list[int] = []
        root.title("edgeunip: " + ", ".join(names))
        root.configure(background=_GROUND)
        root.geometry(f"{min(640 * len(names), 1280)}x480")
        self._margin = _MARGIN if len(names) > 1 else 0
        look = {"background": _GROUND, "foreground": "white", "compound": "bottom"}
        self._panes = [tk.Label(root, text=f"{number} {name}", **look) for number, name in enumerate(names, 1)]
        self._show(list(range(len(names))))
        for key in ("q", "<Escape>"):
            root.bind(key, lambda _: root.destroy())
        root.bind("a", lambda _: self._show(list(range(len(names)))))
        root.bind("<Tab>", lambda _: self._show([(self._shown[0] + 1) % len(names)]))
        for number in range(min(9, len(names))):
            root.bind(str(number + 1), lambda _, number=number: self._show([number]))
        root.tk.createfilehandler(connection, tk.READABLE, self._readable)
        root.update()
        connection.sendall(b">")
        for number in range(len(names)):
            self._ask(number)

    def _show(self, numbers: list[int]) -> None:
        self._shown = numbers
        for pane in self._panes:
            pane.pack_forget()
        for number in numbers:
            self._panes[number].pack(side="left", fill="both", expand=True)

    def _ask(self, number: int) -> None:
        width = max(64, self._root.winfo_width() // len(self._shown))
        height = max(64, self._root.winfo_height() - self._margin)
        self._connection.sendall(REQUEST.pack(number, min(width, 4096), min(height, 4096)))

    def _readable(self, _: object, __: int) -> None:
        data = self._connection.recv(1 << 20)
        if not data:
            self._root.destroy()
            return
        self._buffer += data
        while len(self._buffer) >= PICTURE.size:
            number, width, height = PICTURE.unpack_from(self._buffer)
            end = PICTURE.size + 3 * width * height
            if len(self._buffer) < end:
                return
            pixels = bytes(self._buffer[PICTURE.size : end])
            del self._buffer[:end]
            self._draw(number, b"P6 %d %d 255\n" % (width, height) + pixels)
            self._ask(number)

    def _draw(self, number: int, ppm: bytes) -> None:
        # Tk shows nothing of a picture that Python no longer holds.
        self._images[number] = self._tk.PhotoImage(data=ppm, format="PPM")
        self._panes[number].configure(image=self._images[number])
        if not self._margin:
            self._panes[number].configure(text="")
        self._root.update_idletasks()


def main(descriptor: int, names: list[str]) -> None:
    """Show the window until it is closed or the other side goes."""
    connection = socket.socket(fileno=descriptor)
    try:
        import tkinter as tk

        root = tk.Tk(className="edgeunip")
    except Exception as error:  # no tkinter, no display, no leave to use it: told in one line whatever it is
        connection.sendall(b"!" + str(error).encode())
        return
    try:
        _Window(tk, root, connection, names)
        root.mainloop()
    except OSError:  # the stream has ended
        return


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
