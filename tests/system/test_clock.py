"""The wall clock jumps by days and back to 1970 under a running stream: no false fault, and nothing stops."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request

import pytest
from services import free_port, needs, wait_for
from streams import Streaming, lines, make_bundle

pytestmark = [pytest.mark.system, pytest.mark.slow]

JUMPS = ("+1d", "-1d", "@1970-01-01 00:10:00", "+0", "+3650d")


def faketime(folder):
    """An environment whose wall clock is what a file says; the monotonic clock is left alone, as a real jump does."""
    needs("faketime")
    shown = subprocess.run(["faketime", "-f", "+0", "env"], capture_output=True, text=True, check=True).stdout
    library = next(line.partition("=")[2] for line in shown.splitlines() if line.startswith("LD_PRELOAD="))
    file = folder / "clock"
    file.write_text("+0\n")
    return file, {
        "LD_PRELOAD": library.replace("libfaketime.so", "libfaketimeMT.so"),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def test_jumps_are_no_faults(tmp_path):
    file, environment = faketime(tmp_path)
    web, camera = free_port(), tmp_path / "cam.sock"
    words = [f"unix:{camera}", "--model", make_bundle(tmp_path), "--sink", "jsonl:out.jsonl", "--sink", f"web:{web}"]
    fake = [sys.executable, "-m", "edgeunip.devices.fakecam", str(camera)]
    made = subprocess.Popen(fake, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        wait_for(camera.exists, 20, "the camera")
        with Streaming(tmp_path / "run", *words, env=environment) as stream:
            stream.wait_until_it_says("Streaming ")
            wait_for((tmp_path / "run/out.jsonl").read_bytes, 20, "the first line")
            time.sleep(2)
            before = len(lines_so_far(tmp_path))
            years = []
            for jump in JUMPS:
                file.write_text(f"{jump}\n")
                years.append(year(environment))
                time.sleep(3)
            after = len(lines_so_far(tmp_path))
            (health,) = status(web)
            code, took_s = stream.stop()
    finally:
        made.kill()
        made.communicate()
    now = time.gmtime().tm_year
    assert years[2] == 1970 and years[4] >= now + 9, "the clock did jump"
    assert after - before > 0.8 * 8.6 * 3 * len(JUMPS), "results came all the time"
    assert health["status"]["state"] == "live" and health["status"]["faults"] == {}, health
    assert health["status"]["opened"] == 1, health
    found = lines(tmp_path / "run/out.jsonl")
    assert {line["state"] for line in found} == {"live"}
    assert max(line["age_ms"] for line in found) < 1000 and min(line["age_ms"] for line in found) >= 0
    assert (code, took_s < 2) == (0, True), stream.said
    assert "warning" not in stream.said and "error" not in stream.said, stream.said


def year(environment):
    code = "import time; print(time.gmtime().tm_year)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout)


def lines_so_far(folder):
    data = (folder / "run/out.jsonl").read_bytes()
    return data.splitlines()


def status(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/status.json", timeout=5) as answer:
        return json.load(answer)["cameras"]
