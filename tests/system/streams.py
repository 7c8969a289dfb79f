"""``edgeunip stream`` as its user starts it: a process of its own, over a tiny real bundle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from services import wait_for

MAIN = "from edgeunip.cli import main; main()"
RUNTIMES = Path(__file__).parents[1] / "runtimes"


def make_bundle(folder):
    code = "import sys, pathlib; from tiny_runtime import save_tiny; save_tiny(pathlib.Path(sys.argv[1]))"
    path = folder / "tiny.bundle"
    environment = {**os.environ, "PYTHONPATH": str(RUNTIMES)}
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment, capture_output=True)
    return path


class Streaming:
    """A running stream. What it prints goes to files in ``folder``, where it also works."""

    def __init__(self, folder, *words, env=None, before=(), options=(), patch=""):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = [*before, sys.executable, "-c", patch + MAIN, *options, "stream", *map(str, words)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        with (folder / "out.txt").open("wb") as out, (folder / "err.txt").open("wb") as err:
            self.process = subprocess.Popen(
                command, cwd=folder, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=environment
            )

    @property
    def said(self):
        return (self.folder / "err.txt").read_text()

    def wait_until_it_says(self, text, seconds=30.0):
        def said():
            assert self.process.poll() is None or text in self.said, self.said
            return text in self.said

        wait_for(said, seconds, f"{text!r}")
        return self

    def stop(self, number=signal.SIGTERM, limit_s=30.0):
        """Ask it to end; return (exit code, seconds it took)."""
        begin = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(limit_s)
        return code, time.monotonic() - begin

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


def lines(path):
    """The objects of a JSON lines file, every line whole."""
    data = path.read_bytes()
    assert data == b"" or data.endswith(b"\n"), data[-80:]
    return [json.loads(line) for line in data.splitlines()]


def count(path):
    """Frames that ffprobe finds in a video, without a complaint."""
    words = [
        "ffprobe",
        "-v",
        "error",
        "-count_frames",
        "-select_streams",
        "v:0",
        "-show_entries",
        "stream=nb_read_frames",
    ]
    done = subprocess.run([*words, "-of", "csv=p=0", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", (path, done.stderr)
    return int(done.stdout.strip().rstrip(","))
