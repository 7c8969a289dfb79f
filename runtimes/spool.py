"""Messages that wait for their receiver: in order, on the disk, within a bound.

A message stays until :meth:`Spool.done` says that it has arrived. What the disk does not take (it is full, or there
is no folder at all) waits in memory, up to a number. When the bound is reached the oldest go, and are counted.

The folder holds segments, ``NUMBER.jsonl``, each named by its first message. Lines are whole or not there at all, of
two kinds: ``{"n": 7, "topic": ..., "payload": ...}`` is a message, ``{"done": 6}`` says that all up to number 6 have
arrived. A killed process loses nothing it was given; what had arrived in its last second is sent again.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgeunip import durable
from edgeunip.errors import SinkError, StorageError, storage_error

_IN_MEMORY = 1000
_SEGMENTS = 8
_NOTE_S = 1.0


@dataclass(frozen=True)
class Message:
    """Something to send.

    Attributes:
        number: rising from message to message; numbers may be left out.
        topic: where it goes.
        payload: what it says.
    """

    number: int
    topic: str
    payload: str


@dataclass
class _Segment:
    """A file of messages: its last one's number, its size, how many nobody has taken, and where those begin."""

    path: Path
    last: int = 0
    size: int = 0
    waiting: int = 0
    offset: int = 0


class Spool:
    """A bounded first-in first-out queue that outlives the process. Any thread may use it.

    Attributes:
        dropped: messages that nobody will get: the bound was reached, or the disk lost them.
        trouble: why messages wait in memory although there is a folder; None while the disk takes them.
    """

    def __init__(self, folder: Path | None, *, limit: int = 50_000_000) -> None:
        """Take up what an earlier process left.

        Args:
            folder: where the segments lie; None keeps the last 1000 messages, in memory only.
            limit: bytes on the disk.

        Raises:
            SinkError: another process uses the folder.
            StorageError: it cannot be written.
        """
        self.dropped = 0
        self.trouble: StorageError | None = None
        self._folder, self._limit = folder, limit
        self._lock = threading.Lock()
        self._memory: deque[Message] = deque()
        self._segments: list[_Segment] = []
        self._writer: durable.Stream | None = None
        self._reader: tuple[_Segment, BinaryIO] | None = None
        self._last = self._done = self._noted = 0
        self._noted_s = time.monotonic()
        self._held = contextlib.ExitStack()
        if folder is not None:
            self._held.enter_context(durable.exclusive(folder / "lock", lambda: _in_use(folder)))
            self._take_up(folder)

    @property
    def waiting(self) -> int:
        """Messages nobody has taken yet."""
        with self._lock:
            return sum(segment.waiting for segment in self._segments) + len(self._memory)

    def put(self, topic: str, payload: str) -> None:
        """Add a message."""
        with self._lock:
            self._last += 1
            message = Message(self._last, topic, payload)
            # What waits in memory is older than what would go to the disk now: order first.
            if self._folder is None or self._memory or not self._to_disk(message, self._folder):
                self._to_memory(message)

    def take(self) -> Message | None:
        """Return the oldest message nobody has taken; None when there is none."""
        with self._lock:
            return self._from_disk() or (self._memory.popleft() if self._memory else None)

    def done(self, number: int) -> None:
        """Note that all messages up to ``number`` have arrived."""
        with self._lock:
            self._done = max(self._done, number)
            if time.monotonic() - self._noted_s >= _NOTE_S:
                self._note()
            while len(self._segments) > 1 and self._finished(self._segments[0]):
                self._discard_oldest()

    def close(self) -> None:
        """Free the folder; what has not arrived stays in it. May be called twice."""
        with self._lock:
            self._note()
            self._end_segment()
            while self._segments and self._finished(self._segments[0]):
                self._discard_oldest()
            self._close_reader()
            self._segments, self._folder = [], None
            self._held.close()

    def _to_memory(self, message: Message) -> None:
        self._memory.append(message)
        if len(self._memory) > _IN_MEMORY:
            self._memory.popleft()
            self.dropped += 1

    def _to_disk(self, message: Message, folder: Path) -> bool:
        line = _line({"n": message.number, "topic": message.topic, "payload": message.payload})
        try:
            if self._writer is None or self._segments[-1].size + len(line) > self._limit // _SEGMENTS:
                self._start_segment(folder, message.number)
            self._append(line)
        except StorageError as error:
            self.trouble = error
            self._end_segment()  # part of the line may be there: nothing is written behind it
            return False
        self.trouble = None
        segment = self._segments[-1]
        segment.last, segment.waiting = message.number, segment.waiting + 1
        while len(self._segments) > 1 and sum(one.size for one in self._segments) > self._limit:
            self._discard_oldest()
        return True

    def _from_disk(self) -> Message | None:
        while segment := next((one for one in self._segments if one.waiting), None):
            try:
                line = self._open_reader(segment).readline()
            except OSError as error:
                line, self.trouble = b"", storage_error(error, segment.path)
            segment.offset += len(line)
            message = _message(line)
            if message is not None and message.number > self._done:
                segment.waiting -= 1
                return message
            if not line:  # the disk gives back less than it took
                self.dropped, segment.waiting = self.dropped + segment.waiting, 0
        return None

    def _start_segment(self, folder: Path, number: int) -> None:
        self._end_segment()
        path = folder / f"{number:012d}.jsonl"
        # One of this name holds no message, else the number would be taken: a note only, or nothing.
        self._segments = [segment for segment in self._segments if segment.path != path]
        self._writer = durable.Stream(path)
        self._segments.append(_Segment(path, last=number - 1))
        self._append(_line({"done": self._done}))

    def _append(self, line: bytes) -> None:
        if self._writer is not None:
            self._segments[-1].size += self._writer.write(line)

    def _end_segment(self) -> None:
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.close()
        except StorageError as error:
            self.trouble = error

    def _note(self) -> None:
        """Write down what has arrived, so that a later process does not send it again."""
        self._noted_s = time.monotonic()
        if self._folder is None or self._noted == self._done:
            return
        try:
            if self._writer is None:
                self._start_segment(self._folder, self._last + 1)
            else:
                self._append(_line({"done": self._done}))
            self._noted = self._done
        except StorageError as error:
            self.trouble = error
            self._end_segment()

    def _finished(self, segment: _Segment) -> bool:
        return not segment.waiting and segment.last <= self._done

    def _discard_oldest(self) -> None:
        segment = self._segments.pop(0)
        self.dropped += segment.waiting
        try:
            segment.path.unlink(missing_ok=True)
        except OSError as error:
            self.trouble = storage_error(error, segment.path)

    def _open_reader(self, segment: _Segment) -> BinaryIO:
        if self._reader is None or self._reader[0] is not segment:
            self._close_reader()
            self._reader = segment, segment.path.open("rb")
            self._reader[1].seek(segment.offset)
        return self._reader[1]

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader[1].close()
        self._reader = None

    def _take_up(self, folder: Path) -> None:
        try:
            found = {path: _scan(path) for path in sorted(folder.glob("[0-9]*.jsonl"))}
        except OSError as error:
            raise storage_error(error, folder) from error
        self._done = self._noted = max((done for done, _ in found.values()), default=0)
        for path, (_, numbers) in found.items():
            waiting = sum(number > self._done for number in numbers)
            self._segments.append(_Segment(path, max(numbers, default=0), path.stat().st_size, waiting))
            self._last = max(self._last, *numbers, self._done)
        while self._segments and self._finished(self._segments[0]):
            self._discard_oldest()


def _scan(path: Path) -> tuple[int, list[int]]:
    """Return up to which number messages are noted as arrived, and the numbers of those in the file."""
    done, numbers = 0, []
    with path.open("rb") as file:
        for line in file:
            fields = _fields(line)
            done = max(done, fields.get("done", 0))
            numbers += [fields["n"]] if "n" in fields else []
    return done, numbers


def _message(line: bytes) -> Message | None:
    fields = _fields(line)
    return Message(fields["n"], fields["topic"], fields["payload"]) if "n" in fields else None


def _fields(line: bytes) -> dict[str, Any]:
    """Return a line's fields; none where the line is torn: its writer was killed, or the disk was full."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(fields, dict):
        return {}
    types = {"n": int, "topic": str, "payload": str} if "n" in fields else {"done": int}
    whole = all(isinstance(fields.get(key), kind) for key, kind in types.items())
    return fields if whole else {}


def _line(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, separators=(",", ":")) + "\n").encode()


def _in_use(folder: Path) -> SinkError:
    return SinkError("Another process uses this spool", where=folder, remedy="Give each its own folder.")
