"""A stand-in for the hub on this machine: the few answers of it that a download needs, and its ways to fail."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_FROM = 8_000  # bytes; the hub decides by suffix and size


@dataclass
class Repository:
    """Branches, and the files of each commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Put ``files`` on ``branch``; returns the commit."""
        digest = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[digest] = files
        self.branches[branch] = digest
        return digest


@dataclass
class Asked:
    """A request as it came; ``server`` is hub or cdn."""

    server: str
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Hub:
    """The hub and, at another port, the storage that it sends large files from.

    Attributes:
        refuse: by repository, the status and the headers of every answer.
        cut: by file, after how many bytes of an answer the connection is closed; ``cuts`` is how often.
        spoil: files whose bytes are not what the listing says; ``longer`` those that have more of them.
        knows_ranges: whether the storage answers a Range with 206.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    refuse: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    cuts: float = float("inf")
    spoil: set[str] = field(default_factory=set)
    longer: set[str] = field(default_factory=set)
    knows_ranges: bool = True
    asked: list[Asked] = field(default_factory=list)
    hub: str = ""
    cdn: str = ""

    def add(self, name: str, folder: Path, without: tuple[str, ...] = ()) -> str:
        """Serve ``folder`` as ``name``; returns its commit."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        files = {key: value for key, value in files.items() if not key.startswith(without or ("\0",))}
        return self.repositories.setdefault(name, Repository()).commit(files)

    def fetched(self, method: str = "GET") -> list[str]:
        """The files that were asked for, by name."""
        return [asked.path.partition("/resolve/")[2].partition("/")[2] for asked in self.asked
                if asked.server == "hub" and asked.method == method and "/resolve/" in asked.path]  # fmt: skip

    def tokens(self, server: str) -> set[str | None]:
        """The Authorization headers of all requests about repositories (the library also asks for a list of its own)."""
        return {asked.headers.get("authorization") for asked in self.asked
                if asked.server == server and "agent-harnesses" not in asked.path}  # fmt: skip

    def reset(self) -> None:
        self.refuse, self.cut, self.cuts, self.spoil, self.longer, self.knows_ranges = {}, {}, float("inf"), set(), set(), True
        self.asked.clear()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Answers until the end of the block; afterwards, connections are refused."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub, name)) for name in ("hub", "cdn")]
    ports = [server.server_port for server in servers]
    # Two names, as the library may tell by them whether a redirection leaves the hub.
    hub.hub, hub.cdn = f"http://127.0.0.1:{ports[0]}", f"http://localhost:{ports[1]}"
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def _handler(hub: Hub, name: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            hub.asked.append(Asked(name, self.command, self.path, {key.lower(): value for key, value in self.headers.items()}))
            path = unquote(urlsplit(self.path).path).strip("/")
            if name == "cdn":
                _, repository, commit, file = path.split("|")
                self._bytes(hub.repositories[repository].commits[commit][file], file)
            elif path.startswith("api/models/"):
                owner, repository, *rest = path.removeprefix("api/models/").split("/")
                self._info(f"{owner}/{repository}", "/".join(rest[1:]) or "main")
            elif "/resolve/" in path:
                repository, _, rest = path.partition("/resolve/")
                revision, _, file = rest.partition("/")
                self._file(repository, revision, file)
            else:
                self._say(404, {}, b"")

        do_HEAD = do_GET  # noqa: N815

        def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def _refused(self, repository: str) -> bool:
            status, headers = hub.refuse.get(repository, (0, {}))
            if not status and repository not in hub.repositories:
                status, headers = 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."}
            if status:
                echo = {"X-Error-Message": f"you sent {self.headers.get('Authorization')}"} if "Echo" in headers else {}
                self._say(status, {**headers, **echo}, b"")
            return bool(status)

        def _commit(self, repository: str, revision: str) -> str | None:
            known = hub.repositories[repository]
            commit = revision if revision in known.commits else known.branches.get(revision)
            if commit is None:
                self._say(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"}, b"")
            return commit

        def _info(self, repository: str, revision: str) -> None:
            if self._refused(repository) or (commit := self._commit(repository, revision)) is None:
                return
            siblings = []
            for file, content in hub.repositories[repository].commits[commit].items():
                entry: dict[str, Any] = {"rfilename": file}
                if "blobs=" in self.path:
                    entry |= {"size": len(content), "blobId": _git(content)}
                    if len(content) >= LFS_FROM:
                        entry["lfs"] = {"size": len(content), "sha256": _sha256(content), "pointerSize": 134}
                siblings.append(entry)
            body = {"id": repository, "modelId": repository, "sha": commit, "siblings": siblings, "tags": [], "private": False}
            self._say(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

        def _file(self, repository: str, revision: str, file: str) -> None:
            if self._refused(repository) or (commit := self._commit(repository, revision)) is None:
                return
            content = hub.repositories[repository].commits[commit].get(file)
            if content is None:
                self._say(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"")
            elif len(content) >= LFS_FROM:
                place = (
                    f"{hub.cdn}/%7C{repository.replace('/', '%2F')}%7C{commit}%7C{file.replace('/', '%2F')}?X-Signature=s3cret"
                )
                self._say(302, {
                    "Location": place, "X-Repo-Commit": commit, "X-Linked-Etag": f'"{_sha256(content)}"',
                    "X-Linked-Size": str(len(content)),
                }, b"")  # fmt: skip
            else:
                self._bytes(content, file, {"X-Repo-Commit": commit, "ETag": f'"{_git(content)}"'})

        def _bytes(self, content: bytes, file: str, headers: dict[str, str] | None = None) -> None:
            status, start = 200, 0
            if hub.knows_ranges and (asked := self.headers.get("Range")):
                status, start = 206, int(asked.removeprefix("bytes=").rstrip("-"))
            body = content[start:] if file not in hub.spoil else bytes(len(content) - start)
            body += b"more" * (file in hub.longer)
            cut = hub.cut.get(file, len(body)) if self.command == "GET" else len(body)
            length = {"Content-Length": str(len(body))}
            if cut < len(body) and hub.cuts > 0:
                hub.cuts -= 1
                self._say(status, {**(headers or {}), **length}, body[:cut])
                self.close_connection = True
            else:
                self._say(status, {**(headers or {}), **length}, body)

    return Handler


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
