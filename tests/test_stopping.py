"""Signals: the first ends in order, the second at once; SIGHUP says that nothing is reloaded."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import pytest

WAITS = """
import signal, sys, time
from edgeunip.stopping import stopping
if 'ignored' in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
with stopping() as stop:
    print('ready', flush=True)
    stop.wait()
    print('ending', flush=True)
    if 'hangs' in sys.argv:
        time.sleep(60)
print('ended', flush=True)
"""


def start(*words: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS, *words],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_ends_in_order(number: signal.Signals) -> None:
    process = start()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "ending\nended\n", "")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_second_ends_at_once(second: signal.Signals) -> None:
    process = start("hangs")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None and process.stdout.readline() == "ending\n"
    process.send_signal(second)
    process.communicate(timeout=20)
    assert process.returncode == -second


def test_sighup_says_that_nothing_is_reloaded() -> None:
    process = start()
    for _ in range(3):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
    assert process.poll() is None
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and out.endswith("ended\n")
    assert "SIGHUP: nothing is reloaded" in err


def test_sighup_that_is_ignored_stays_so() -> None:
    process = start("ignored")
    process.send_signal(signal.SIGHUP)
    process.terminate()
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


def test_a_terminal_that_has_gone_ends_in_order() -> None:
    ours, theirs = pty.openpty()
    process = start(stderr=theirs)
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=20)
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, out) == (0, "ending\nended\n")


def test_handlers_come_back() -> None:
    from edgeunip.stopping import stopping

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with stopping() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_leaving_at_once_loses_no_word() -> None:
    code = """
import logging, sys, threading, time
from edgeunip import logs, stopping
logs.set_up()
threading.Thread(target=time.sleep, args=(60,)).start()
for number in range(3):
    logging.getLogger("x").warning("Frame %d", number)
sys.stdout.write("a result")
stopping.leave(7)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout) == (7, "a result")
    assert done.stderr == "edgeunip: warning: Frame 0\nedgeunip: 2 more, the last: Frame 2\n"
