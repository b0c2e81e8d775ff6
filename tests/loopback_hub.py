"""A Hugging Face hub on 127.0.0.1, from the standard library alone: what the real client asks, in real form.

It serves a folder ``owner/name/revision/files``, read anew at every request. Large files (by ending) are
redirected to a content server of another host name, as on the hub, and carry their SHA-256. Faults are
switches of ``Hub``; every request is in ``Hub.log``.
"""

import hashlib
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

LARGE = (".safetensors", ".bin", ".pt", ".h5", ".msgpack")
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Request:
    """One line of the log."""

    method: str
    path: str
    """Decoded, without the query."""
    status: int
    sent: int
    """Bytes of the body that went out."""
    authorized: bool
    """Whether the client sent a token."""
    host: str
    at: float
    """Seconds, by the clock that files are stamped with."""


@dataclass
class Answer:
    """What goes out in answer to a request."""

    status: int
    headers: dict[str, str]
    content: bytes


@dataclass
class Hub:
    """The server's address, log and switches. All may be changed while it runs."""

    root: Path
    url: str = ""
    log: list[Request] = field(default_factory=list)
    private: set[str] = field(default_factory=set)
    """Repositories that answer 401 as long as nobody sends a token."""
    tags: set[tuple[str, str]] = field(default_factory=set)
    """(repository, revision) of those that are tags; and with ``both``, branches as well."""
    both: bool = False
    gated: set[str] = field(default_factory=set)
    """Repositories that tell what they hold, but hand out no file."""
    busy: list[tuple[int, int]] = field(default_factory=list)
    """(status, Retry-After) of the next requests whose path contains ``busy_path``, one each."""
    busy_path: str = ""
    cut: list[int] = field(default_factory=list)
    """The next answers from the content server break off after that many bytes."""
    altered: set[str] = field(default_factory=set)
    """File names whose last byte arrives changed."""
    truncated: set[str] = field(default_factory=set)
    """File names of which a half is served as if it were all."""
    ranges: str = ""
    """How the content server answers ranges wrongly: ignored (200), refused (416), short, shifted, unlike
    (another ETag from the second on), moved (a redirect to the right place) or looping (one to itself)."""
    silent_hashes: bool = False
    """Leave hashes out of what the hub tells of its files."""
    nameless: bool = False
    """Leave the commit out of what the hub tells of a revision."""
    bytes_per_second: float | None = None
    """Of the content server, for each connection."""
    titles: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """``repo@branch`` -> (title, branch that stands for its commit) of its history, the newest first."""
    spoil: Callable[[BaseHTTPRequestHandler, "Answer"], "Answer | None"] = lambda _, answer: answer
    """Changes an answer before it goes out, or sends another in its place and returns None."""
    xet: Path | None = None
    """Where set, large files are in Xet storage too: in this folder, which hf-xet reads by itself."""
    _hashes: dict[tuple[Path, int, int], tuple[str, str]] = field(default_factory=dict)
    _stored: dict[Path, str] = field(default_factory=dict)
    _storing: threading.Lock = field(default_factory=threading.Lock)

    def revision(self, repo: str, revision: str) -> Path | None:
        """The folder that stands for a branch or a commit; None where there is none."""
        for folder in self.revisions(repo):
            if revision in (folder.name, self.commit(folder)):
                return folder
        return None

    def revisions(self, repo: str) -> list[Path]:
        """All branches of a repository."""
        folder = self.root / repo
        return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def commit(self, folder: Path) -> str:
        """40 hex digits that change with the content; a branch that is a link is its target's commit."""
        content = [(self.name(path, folder), *self.hashes(path)) for path in self.files(folder)]
        return hashlib.sha1(json.dumps([folder.resolve().name, content]).encode()).hexdigest()

    def files(self, folder: Path) -> list[Path]:
        """All files of a revision."""
        return sorted(path for path in folder.rglob("*") if path.is_file())

    def name(self, path: Path, folder: Path) -> str:
        """A file's name in its repository."""
        return path.relative_to(folder).as_posix()

    def hashes(self, path: Path) -> tuple[str, str]:
        """(SHA-256, Git's blob id) of a file."""
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in self._hashes:
            content = path.read_bytes()
            blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content)
            self._hashes[key] = (hashlib.sha256(content).hexdigest(), blob.hexdigest())
        return self._hashes[key]

    def xet_hash(self, path: Path) -> str:
        """The name of a file in Xet storage, where it is put when it is first asked for."""
        from hf_xet import XetSession  # pyright: ignore[reportAttributeAccessIssue]

        with self._storing:
            if path not in self._stored:
                with XetSession().new_upload_commit(endpoint=f"local://{self.xet}") as commit:
                    stored = commit.start_upload_file(str(path))
                self._stored[path] = stored.result().xet_info.hash
        return self._stored[path]

    def asked(self, part: str = "") -> list[str]:
        """``METHOD path`` of the requests logged so far whose path contains ``part``."""
        return [f"{line.method} {line.path}" for line in self.log if part in line.path]

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(line.sent for line in self.log)


@contextmanager
def loopback_hub(root: Path) -> Iterator[Hub]:
    """Serves ``root`` until the block ends."""
    hub = Hub(root)
    server = _Server(("127.0.0.1", 0), hub)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.close_connections()
        server.server_close()
        thread.join()


def use_hub(monkeypatch: pytest.MonkeyPatch, hub: Hub, home: Path) -> None:
    """Points this process at the loopback hub, with an empty cache below ``home`` and nobody's token."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(home))
    for name in ("HF_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    # These the library reads at import only; so a request that ignores HF_ENDPOINT is logged here as well.
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], hub: Hub) -> None:
        self.hub = hub
        self.lock = threading.Lock()
        self._open: set = set()
        super().__init__(address, _Handler)

    def process_request(self, request, client_address) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        # Clients keep connections alive; their handlers would wait for the next request for ever.
        for request in list(self._open):
            self.shutdown_request(request)

    def handle_error(self, request, client_address) -> None:
        """A client that hangs up is no fault of the test."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args) -> None:
        """Requests are logged as records, not to stderr."""

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    @property
    def serving(self) -> _Server:
        assert isinstance(self.server, _Server)
        return self.server

    @property
    def hub(self) -> Hub:
        return self.serving.hub

    def _route(self) -> None:
        self.route = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        raw = [part for part in urllib.parse.urlsplit(self.path).path.split("/") if part]
        parts = [urllib.parse.unquote(part) for part in raw]
        if parts[:1] == ["datasets"]:
            parts = parts[1:]  # data sets lie beside models here
        with self.serving.lock:
            busy = self.hub.busy.pop(0) if self.hub.busy and self.hub.busy_path in self.route else None
        if busy is not None:
            self._answer(busy[0], {"Retry-After": str(busy[1])})
        elif parts[0] == "content":
            self._content(parts)
        elif parts[:2] == ["api", "models"] and len(parts) >= 4:
            self._api("/".join(parts[2:4]), parts[4:])
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._answer(404)

    def _refused(self, repo: str) -> bool:
        if repo in self.hub.private and "Authorization" not in self.headers:
            self._answer(401, {"X-Error-Message": "Invalid username or password."})
        elif not self.hub.revisions(repo):
            self._answer(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        else:
            return False
        return True

    def _folder(self, repo: str, revision: str) -> Path | None:
        folder = self.hub.revision(repo, revision)
        if folder is None:
            self._answer(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        return folder

    def _api(self, repo: str, rest: list[str]) -> None:
        if self._refused(repo):
            return
        if rest == ["refs"]:
            folders = self.hub.revisions(repo)
            tags = [each for each in folders if (repo, each.name) in self.hub.tags]
            heads = [each for each in folders if each not in tags or self.hub.both]
            self._json(
                {"branches": self._refs(heads, "heads"), "converts": [], "tags": self._refs(tags, "tags")}
            )
            return
        if rest[:1] == ["commits"] and f"{repo}@{rest[1]}" in self.hub.titles:
            self._json([self._commit(repo, *each) for each in self.hub.titles[f"{repo}@{rest[1]}"]])
            return
        if rest[:1] == ["xet-read-token"]:
            place = {"X-Xet-Cas-Url": f"local://{self.hub.xet}", "X-Xet-Access-Token": "token"}
            self._answer(200, place | {"X-Xet-Token-Expiration": str(int(time.time()) + 3600)})
            return
        folder = self._folder(repo, rest[1] if len(rest) > 1 else "main")
        if folder is None:
            return
        files = self.hub.files(folder)
        if rest[:1] == ["tree"]:
            self._json([self._tree_entry(path, folder) for path in files])
        else:
            siblings = [self._sibling(path, folder) for path in files]
            commit = None if self.hub.nameless else self.hub.commit(folder)
            self._json({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings})

    def _refs(self, folders: list[Path], kind: str) -> list[dict]:
        return [
            {"name": each.name, "ref": f"refs/{kind}/{each.name}", "targetCommit": self.hub.commit(each)}
            for each in folders
        ]

    def _commit(self, repo: str, title: str, branch: str) -> dict:
        commit = self.hub.commit(self.hub.root / repo / branch)
        date = "2026-01-01T00:00:00.000Z"
        return {"id": commit, "title": title, "message": "", "date": date, "authors": []}

    def _tree_entry(self, path: Path, folder: Path) -> dict:
        sha256, blob = self.hub.hashes(path)
        size = path.stat().st_size
        entry: dict = {"type": "file", "path": self.hub.name(path, folder), "size": size, "oid": blob}
        if path.suffix in LARGE:
            entry["lfs"] = {"oid": sha256, "size": size, "pointerSize": 134}
        return entry

    def _sibling(self, path: Path, folder: Path) -> dict:
        entry: dict = {"rfilename": self.hub.name(path, folder)}
        if "blobs=" in self.path:
            sha256, blob = self.hub.hashes(path)
            size = path.stat().st_size
            entry |= {"size": size, "blobId": None if self.hub.silent_hashes else blob}
            if path.suffix in LARGE and not self.hub.silent_hashes:
                entry["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
        return entry

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        if self._refused(repo):
            return
        folder = self._folder(repo, revision)
        if folder is None:
            return
        commit = {"X-Repo-Commit": self.hub.commit(folder)}
        path = folder / name
        if path not in self.hub.files(folder):
            self._answer(404, commit | {"X-Error-Code": "EntryNotFound"})
            return
        if repo in self.hub.gated:
            self._answer(403, commit | {"X-Error-Code": "GatedRepo"})
            return
        sha256, blob = self.hub.hashes(path)
        if path.suffix not in LARGE:
            self._file(path, commit | {"ETag": f'"{blob}"'})
            return
        if self.hub.xet is not None:
            token = f"{self.hub.url}/api/models/{repo}/xet-read-token/{folder.name}"
            commit |= {"X-Xet-Hash": self.hub.xet_hash(path), "X-Xet-Refresh-Route": token}
        port = self.serving.server_address[1]
        # Another host name on purpose: the client follows redirects on one host and would lose the commit.
        place = urllib.parse.quote(f"content/{repo}/{folder.name}/{name}")
        self._answer(
            302,
            commit
            | {
                "Location": f"http://localhost:{port}/{place}?Signature=not-for-logs",
                "X-Linked-Etag": f'"{sha256}"',
                "X-Linked-Size": str(len(self._bytes(path))),
            },
        )

    def _content(self, parts: list[str]) -> None:
        path = self.hub.root.joinpath(*parts[1:])
        if path in self.hub.files(self.hub.root):
            self._file(path, {"ETag": f'"{self.hub.hashes(path)[0]}"'}, breakable=True)
        else:
            self._answer(404)

    def _bytes(self, path: Path) -> bytes:
        content = path.read_bytes()
        if path.name in self.hub.truncated:
            content = content[: len(content) // 2]
        if path.name in self.hub.altered:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return content

    def _file(self, path: Path, headers: dict[str, str], breakable: bool = False) -> None:
        content = self._bytes(path)
        total, status = len(content), 200
        wanted = self.headers.get("Range", "")
        if wanted and breakable and self.hub.ranges and self._wrong(wanted, content, headers):
            return
        if wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) if last else total - 1
            content, status = content[start : end + 1], 206
            headers = headers | {"Content-Range": f"bytes {start}-{end}/{total}"}
        headers = headers | {"Accept-Ranges": "bytes"}
        with self.serving.lock:
            stop = self.hub.cut.pop(0) if breakable and self.hub.cut and self.command == "GET" else None
        self._answer(status, headers, content, stop)

    def _wrong(self, wanted: str, content: bytes, headers: dict[str, str]) -> bool:
        """Answers a range as ``Hub.ranges`` says; whether it has."""
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), int(last)
        told = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        before = [line for line in self.hub.log if line.path == self.route and line.status == 206]
        match self.hub.ranges:
            case "ignored":
                self._answer(200, headers, content)
            case "refused":
                self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
            case "short":
                self._answer(206, headers | told, content[start:end])
            case "shifted":
                shifted = {"Content-Range": f"bytes {start + 1}-{end + 1}/{len(content)}"}
                self._answer(206, headers | shifted, content[start + 1 : end + 2])
            case "unlike" if before:
                self._answer(206, headers | told | {"ETag": '"another"'}, content[start : end + 1])
            case "moved" if "again=" not in self.path:
                self._answer(302, {"Location": f"{self.path}&again=1"})
            case "looping":
                self._answer(302, {"Location": self.path})
            case _:
                return False
        return True

    def _json(self, value: object) -> None:
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _answer(
        self,
        status: int,
        headers: dict[str, str] | None = None,
        content: bytes = b"",
        stop: int | None = None,
    ) -> None:
        answer = self.hub.spoil(self, Answer(status, headers or {}, content))
        if answer is None:
            self.close_connection = True
            return
        status, headers, content = answer.status, answer.headers, answer.content
        body = b"" if self.command == "HEAD" else content if stop is None else content[:stop]
        # Logged before it goes out, so that a client that has its answer finds it in the log.
        self.hub.log.append(
            Request(
                self.command,
                self.route,
                status,
                len(body),
                "Authorization" in self.headers,
                self.headers.get("Host", "").partition(":")[0],
                time.time(),
            )
        )
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        rate = self.hub.bytes_per_second if self.route.startswith("/content/") else None
        chunk = _CHUNK if rate is None else max(1, min(_CHUNK, int(rate / 50)))
        begun = time.monotonic()
        for start in range(0, len(body), chunk):
            self.wfile.write(body[start : start + chunk])
            if rate is not None:
                time.sleep(max(0.0, begun + (start + chunk) / rate - time.monotonic()))
        if stop is not None:
            self.close_connection = True
