"""A hub of one's own on this machine: as much of the Hugging Face hub as its client asks for."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REVISIONS = {"main": "a" * 40, "v1": "b" * 40}


class Hub(ThreadingHTTPServer):
    """Serves one model, one folder for each revision.

    Args:
        name: Of the model, `owner/name`.
        folders: Its files, by the name of the revision.
    """

    def __init__(self, name: str, folders: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.folders = name, {REVISIONS[name]: folder for name, folder in folders.items()}
        self.fetched: list[str] = []  # names of files, one for each answer that held content
        self.cut: int | None = None  # bytes after which the next answer breaks off
        self.is_broken = False  # whether all that comes after such an answer is refused

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, which pytest would take for a failure."""


class Handler(BaseHTTPRequestHandler):
    """What is asked, and what is said."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self.do_GET(is_head=True)

    def do_GET(self, is_head: bool = False) -> None:
        path = self.path.partition("?")[0]
        api = re.fullmatch(rf"/api/models/{self.server.name}(?:/(revision|tree)/([^/]+))?", path)
        file = re.fullmatch(rf"/{self.server.name}/resolve/([^/]+)/(.+)", path)
        revision = (api[2] or "main") if api else file[1] if file else None
        folder = self.server.folders.get(REVISIONS.get(str(revision), str(revision)))
        if revision is None:
            self.say(404, b"", {"X-Error-Code": "RepoNotFound"}, is_head)
        elif folder is None:
            self.say(404, b"", {"X-Error-Code": "RevisionNotFound"}, is_head)
        elif file:
            self.say_file(folder / file[2], REVISIONS.get(file[1], file[1]), is_head)
        else:
            files = sorted(path for path in folder.iterdir() if path.is_file())
            said: Any = {"id": self.server.name, "sha": REVISIONS.get(str(revision), revision), "siblings": []}
            if api and api[1] == "tree":
                said = [entry(path) for path in files]
            self.say(200, json.dumps(said).encode(), {"Content-Type": "application/json"}, is_head)

    def say_file(self, path: Path, commit: str, is_head: bool) -> None:
        if not path.is_file():
            return self.say(404, b"", {"X-Error-Code": "EntryNotFound"}, is_head)
        if self.server.is_broken and self.server.cut is None and not is_head:
            return self.say(403, b"", {"X-Error-Message": "not today"}, is_head)
        content = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
        if not is_head:
            self.server.fetched.append(path.name)
        return self.say(200, content, headers, is_head)

    def say(self, status: int, content: bytes, headers: dict[str, str], is_head: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if is_head:
            return
        if self.server.cut is not None and len(content) > self.server.cut:
            self.wfile.write(content[: self.server.cut])
            self.server.cut, self.close_connection = None, True
            return
        self.wfile.write(content)


def entry(path: Path) -> dict[str, Any]:
    """A file in a list."""
    content = path.read_bytes()
    return {"type": "file", "path": path.name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}


@contextmanager
def serving(name: str, folders: dict[str, Path]) -> Iterator[Hub]:
    """A hub in a thread of this process."""
    with Hub(name, folders) as hub:
        thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
