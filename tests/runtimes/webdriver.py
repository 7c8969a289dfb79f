"""A headless Chromium driven over the W3C WebDriver protocol with the standard library alone."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = "chromium and chromedriver are not installed (apt-get install chromium chromium-driver)"

_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-first-run",
]


class Browser:
    """One window of ``width`` x ``height`` CSS pixels; ``phone`` makes it a touch device of double density."""

    def __init__(self, width: int, height: int, *, phone: bool = False) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._driver = subprocess.Popen([str(DRIVER), "--port=0"], stdout=subprocess.PIPE, text=True)
        try:
            assert self._driver.stdout is not None
            port = next(found[1] for line in self._driver.stdout if (found := re.search(r"on port (\d+)\.", line)))
            self._root = f"http://127.0.0.1:{port}/session"
            metrics = {"width": width, "height": height, "pixelRatio": 1 + phone, "mobile": phone, "touch": phone}
            options = {
                "binary": CHROMIUM,
                "args": [*_ARGUMENTS, f"--user-data-dir={self._profile.name}"],
                "mobileEmulation": {"deviceMetrics": metrics},
            }
            wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
            self._root += "/" + self._call("", {"capabilities": wanted})["sessionId"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._call("", method="DELETE")
        self.close()

    def open(self, url: str) -> None:
        self._call("/url", {"url": url})

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        return self._call("/execute/sync", {"script": f"return {script}", "args": []})

    def screenshot(self) -> bytes:
        return base64.b64decode(self._call("/screenshot"))

    def console(self) -> list[str]:
        """Return the warnings and errors of the console since the last call."""
        return [entry["message"] for entry in self._call("/se/log", {"type": "browser"}) if entry["level"] != "INFO"]

    def wait(self, script: str, meets: Callable[[Any], bool] = bool, timeout_s: float = 8.0) -> Any:
        """Return the first value of ``script`` that meets the condition."""
        end = time.monotonic() + timeout_s
        while not meets(value := self.run(script)):
            assert time.monotonic() < end, f"{script} stayed {value!r}"
            time.sleep(0.05)
        return value

    def close(self) -> None:
        self._driver.terminate()
        self._driver.communicate(timeout=10)
        self._profile.cleanup()

    def _call(self, path: str, body: dict[str, Any] | None = None, *, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._root + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)["value"]
