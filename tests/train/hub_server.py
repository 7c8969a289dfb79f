"""A hub on the loopback interface: as much of its protocol as fetching and listing a repository takes."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories served over HTTP; ``repos["owner/name"]`` or ``repos["datasets/owner/name"]`` is {file: bytes}.

    ``cut``: the files of which the next transfer breaks in the middle. ``gated``: the repositories that want a log-in.
    ``answers``: (method, path, range asked for) of every request, in order.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.cut: set[str] = set()
        self.gated: set[str] = set()
        self.status = 0
        self.answers: list[tuple[str, str, str | None]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def transfers(self, file: str) -> list[str | None]:
        """The ranges in which a file was fetched."""
        return [span for method, path, span in self.answers if method == "GET" and path.endswith(f"/{file}")]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.answers.append((self.command, path, self.headers.get("Range")))
        if self.hub.status:
            return self._send(self.hub.status, b"")
        if path.startswith("/api/"):
            return self._api(path.removeprefix("/api/").removeprefix("models/"))
        repo, _, rest = path.lstrip("/").partition("/resolve/")
        files, file = self.hub.repos.get(repo), rest.partition("/")[2]
        if files is None:
            return self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        if repo in self.hub.gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        if file not in files:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        self._file(file, files[file])

    def _api(self, path: str) -> None:
        repo = (path.partition("/tree/") if "/tree/" in path else path.partition("/revision/"))[0]
        files = self.hub.repos.get(repo)
        if files is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        tree = [{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()]  # fmt: skip
        about = {"id": repo, "_id": "0", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
        body = json.dumps(tree if "/tree/" in path else about).encode()
        self._send(200, body, {"Content-Type": "application/json"})

    def _file(self, name: str, data: bytes) -> None:
        about = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        if start:
            about["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if start else 200, data[start:], about, cut=name in self.hub.cut and self.command == "GET")
        if self.command == "GET":
            self.hub.cut.discard(name)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut
