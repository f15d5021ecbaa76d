"""A hub of models on this machine: what huggingface_hub asks for, answered from folders.

As much of the protocol as fetching public, gated and missing models needs: the listing of a repository
and its files under ``resolve``, with the headers that the cache is keyed by. ``HF_ENDPOINT`` points to it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATED = "org/gated"
BROKEN = "org/broken"
"""Its files end half way, as when a connection is lost."""


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *args: Any) -> None:
        """Nothing on the tests' standard error."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/[^/]+)?/?", path):
            return self._listing(found[1], found[2] or "revision", body)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._file(found[1], found[2], body)
        # Where a repository has no safetensors weights, transformers looks for a proposal that adds them.
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/commits/[^/]+", path):
            date = "2026-01-01T00:00:00.000Z"
            commits = [{"id": COMMIT, "title": "", "message": "", "authors": [], "date": date}]
            return self._send(200, json.dumps(commits).encode(), {"Content-Type": "application/json"}, body)
        if re.fullmatch(r"/api/models/[^/]+/[^/]+/discussions", path):
            none = b'{"discussions": [], "count": 0, "start": 0}'
            return self._send(200, none, {"Content-Type": "application/json"}, body)
        return self._send(404, b"{}", {}, body)

    def _listing(self, name: str, kind: str, body: bool) -> None:
        folder = self.root / name
        if not folder.is_dir():
            return self._refuse(401, "RepoNotFound", body)
        files = sorted(p.name for p in folder.iterdir())
        if kind == "tree":
            sizes = [(folder / file).stat().st_size for file in files]
            found: Any = [
                {"type": "file", "path": file, "size": size, "oid": COMMIT}
                for file, size in zip(files, sizes, strict=True)
            ]
        else:
            found = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
        return self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"}, body)

    def _file(self, name: str, file: str, body: bool) -> None:
        if not (self.root / name).is_dir():
            return self._refuse(401, "RepoNotFound", body)
        if name == GATED:
            return self._refuse(403, "GatedRepo", body)
        path = self.root / name / file
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", body)
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        cut = name == BROKEN and file.endswith(".safetensors")
        return self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body, cut=cut)

    def _refuse(self, status: int, code: str, body: bool) -> None:
        why = {"GatedRepo": "Access to this model is restricted", "RepoNotFound": "Repository not found"}
        headers = {"X-Error-Code": code, "X-Error-Message": why.get(code, "Entry not found")}
        return self._send(status, b"{}", headers, body)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], body: bool, cut: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut and body:
            self.close_connection = True


@contextmanager
def local_hub(root: Path) -> Iterator[str]:
    """Serve the folders ``root/OWNER/MODEL``; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Hub", (_Hub,), {"root": root}))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
