"""Programs of the distribution that the system tests talk to: each on loopback, with a configuration of its own."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time

import pytest


def needs(*programs):
    """Skip the test, with a reason, unless all programs are installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}; see tests/system/install.sh")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for(happened, seconds=10.0, what="it"):
    """Wait until ``happened()`` is true; return what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.02)
    return found


def answers(port):
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


class Service:
    """A process that can be started, stopped, continued and killed."""

    def __init__(self, command, *, ready, env=None):
        self._command, self._ready, self._env = command, ready, env
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self._env
        )
        wait_for(self._ready, 20, f"the start of {self._command[0]}")
        return self

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            self.kill()


def mosquitto(folder, *, port=None, users=None, tls=None, lasting=False):
    """A broker.

    ``users`` are passwords by name, ``tls`` a (certificate, key) pair of files; a ``lasting`` one keeps sessions, and
    what waits for them, over a kill. ``broker.port`` is where it listens.
    """
    needs("mosquitto", "mosquitto_passwd")
    port = port or free_port()
    lines = [
        f"listener {port} 127.0.0.1",
        f"allow_anonymous {'false' if users else 'true'}",
        f"persistence {str(lasting).lower()}",
    ]
    lines += ["user root", "max_queued_messages 0"]
    if lasting:
        lines += [f"persistence_location {folder}/", "autosave_interval 1", "autosave_on_changes true"]
    if users:
        lines.append(f"password_file {set_passwords(folder, users)}")
    if tls:
        lines += [f"certfile {tls[0]}", f"keyfile {tls[1]}"]
    (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
    command = [shutil.which("mosquitto"), "-c", str(folder / "mosquitto.conf")]
    service = Service(command, ready=lambda: answers(port))
    service.port = port
    return service


def set_passwords(folder, users):
    """Write mosquitto's file of passwords. A running broker must be restarted to see it."""
    path = folder / "passwords"
    path.write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
    path.chmod(0o600)
    subprocess.run(["mosquitto_passwd", "-U", str(path)], check=True, capture_output=True)
    return path


def display(folder, number):
    """An X server without a screen; its display is ``:NUMBER``."""
    needs("Xvfb")
    command = [
        shutil.which("Xvfb"),
        f":{number}",
        "-screen",
        "0",
        "1280x800x24",
        "-nolisten",
        "tcp",
        "-fbdir",
        str(folder),
    ]
    return Service(command, ready=lambda: _x_answers(number))


def _x_answers(number):
    with socket.socket(socket.AF_UNIX) as knock:
        return knock.connect_ex(f"/tmp/.X11-unix/X{number}") == 0
