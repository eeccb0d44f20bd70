"""A small hub on 127.0.0.1 that answers as the real one does: API, resolve, redirects to a CDN of another origin.

Faults are armed by path: a status, a connection that ends early, bytes that were changed, ranges that are ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE_BYTES = 4096
CHUNK_BYTES = 16384
LARGE_SUFFIXES = (".safetensors", ".gguf", ".bin")


@dataclass
class Fault:
    """What goes wrong for paths that contain ``where``, the next ``times`` times.

    status: answer with this. cut_at: end the connection after so many bytes of the body. flip_at: change this byte of
    the file. location: redirect there. etag: announce this checksum. bytes_per_s: slow down. ignore_range: answer 200.
    """

    where: str
    status: int = 0
    cut_at: int | None = None
    flip_at: int | None = None
    location: str = ""
    etag: str = ""
    bytes_per_s: int = 0
    ignore_range: bool = False
    retry_after: str = ""
    times: int = 1_000_000


@dataclass(frozen=True)
class Seen:
    method: str
    host: str
    path: str
    range: str
    authorization: str


@dataclass
class Repo:
    files: dict[str, bytes]
    private_token: str = ""

    @property
    def commit(self) -> str:
        digest = hashlib.sha1(usedforsecurity=False)
        for name in sorted(self.files):
            digest.update(name.encode() + self.files[name])
        return digest.hexdigest()


@dataclass
class FakeHub:
    repos: dict[str, Repo] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)
    """Bytes of each file that were sent, by its name."""
    port: int = 0
    writer: str = "hf_writer"
    """The token that may upload."""
    uploaded: dict[str, bytes] = field(default_factory=dict)
    """Large files that were uploaded, by their SHA-256; a commit gives them names."""
    messages: list[str] = field(default_factory=list)
    siblings: dict[str, object] = field(default_factory=dict)
    """Fields that replace the true ones in each ``siblings`` entry."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, repo: str, files: Mapping[str, bytes], private_token: str = "") -> Repo:
        self.repos[repo] = Repo(dict(files), private_token)
        return self.repos[repo]

    def fault(self, **what: object) -> Fault:
        self.faults.append(Fault(**what))  # type: ignore[arg-type]
        return self.faults[-1]

    def take_fault(self, path: str) -> Fault:
        for fault in self.faults:
            if fault.where in path and fault.times > 0:
                fault.times -= 1
                return fault
        return Fault("")

    def bodies(self, name: str) -> list[Seen]:
        """The requests that were answered with bytes of a file: those at the CDN, or of a small file."""
        return [seen for seen in self.seen if seen.method == "GET" and name in seen.path and "/api/" not in seen.path]


def is_large(name: str, content: bytes) -> bool:
    return name.endswith(LARGE_SUFFIXES) or len(content) > LARGE_BYTES


def sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextmanager
def running() -> Iterator[FakeHub]:
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def _answer(self) -> None:
            header = self.headers.get
            hub.seen.append(
                Seen(self.command, header("Host", ""), self.path, header("Range", ""), header("Authorization", ""))
            )
            try:
                self._route(unquote(urlsplit(self.path).path).strip("/").split("/"))
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _route(self, parts: list[str]) -> None:
            fault = hub.take_fault(self.path)
            sent = self._read() if self.command in ("POST", "PUT") else b""
            if fault.status:
                self._send(fault.status, {"Retry-After": fault.retry_after} if fault.retry_after else {}, b"no")
            elif fault.location:
                self._send(302, {"Location": fault.location}, b"")
            elif self.command in ("POST", "PUT"):
                self._take(parts, sent)
            elif parts[0] == "cdn":
                name = "/".join(parts[4:])
                self._send_file(hub.repos["/".join(parts[1:3])].files[name], name, fault)
            elif parts[:2] == ["api", "models"] and len(parts) == 4:
                self._api("/".join(parts[2:4]), "revision", "main")
            elif parts[:2] == ["api", "models"] and len(parts) >= 6:
                self._api("/".join(parts[2:4]), parts[4], unquote(urlsplit(self.path).path).split(f"/{parts[4]}/")[1])
            elif len(parts) > 4 and parts[2] == "resolve":
                self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), fault)
            else:
                self._send(404, {}, b"")

        def _read(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return content

        def _take(self, parts: list[str], sent: bytes) -> None:
            """What a client uploads: the steps of a commit, in the order in which it takes them."""
            if self.headers.get("Authorization", "") != f"Bearer {hub.writer}" and parts[0] != "lfs":
                self._send(401, {"X-Error-Message": "Invalid token"}, b"{}")
            elif parts == ["api", "repos", "create"]:
                wanted = json.loads(sent)
                name = f"{wanted['organization']}/{wanted['name']}"
                status = 409 if name in hub.repos else 200
                hub.repos.setdefault(name, Repo({".gitattributes": b""}))
                self._json({"url": f"{hub.endpoint}/{name}"}, status)
            elif parts == ["api", "validate-yaml"]:
                self._json({"errors": [], "warnings": []})
            elif "preupload" in parts:
                files = [
                    {"path": one["path"], "shouldIgnore": False, "oid": None, "uploadMode": _mode(one)}
                    for one in json.loads(sent)["files"]
                ]
                self._json({"files": files})
            elif parts[-1] == "batch":
                objects = [
                    {**one, "actions": {"upload": {"href": f"{hub.endpoint}/lfs/{one['oid']}"}}}
                    for one in json.loads(sent)["objects"]
                ]
                self._json({"objects": objects, "transfer": "basic"})
            elif parts[0] == "lfs":
                hub.uploaded[sha256(sent)] = sent
                self._json({})
            else:
                self._commit("/".join(parts[2:4]), [json.loads(line) for line in sent.splitlines()])

        def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
            repo = hub.repos[name]
            header = lines[0]["value"]
            if header.get("parentCommit") not in (None, repo.commit):
                self._send(412, {"X-Error-Message": "A commit has happened since"}, b"{}")
                return
            for line in lines[1:]:
                value = line["value"]
                content = hub.uploaded[value["oid"]] if line["key"] == "lfsFile" else b64decode(value["content"])
                repo.files[value["path"]] = content
            hub.messages.append(header["summary"])
            url = f"{hub.endpoint}/{name}/commit/{repo.commit}"
            self._json({"commitUrl": url, "commitOid": repo.commit, "pullRequestUrl": None})

        def _json(self, value: object, status: int = 200) -> None:
            self._send(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

        def _allowed(self, name: str, revision: str) -> Repo | None:
            repo = hub.repos.get(name)
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if repo is None or (repo.private_token and token != repo.private_token):
                code = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
                self._send(404 if token else 401, code, b"")
                return None
            if revision not in ("main", repo.commit):
                self._send(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b"")
                return None
            return repo

        def _api(self, name: str, what: str, revision: str) -> None:
            repo = self._allowed(name, revision)
            if repo is None:
                return
            if what == "tree":
                reply: object = [_tree_entry(path, content) for path, content in repo.files.items()]
            else:
                siblings = [_sibling(path, content) | hub.siblings for path, content in repo.files.items()]
                reply = {"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings, "tags": []}
            self._send(200, {"Content-Type": "application/json"}, json.dumps(reply).encode())

        def _resolve(self, name: str, revision: str, path: str, fault: Fault) -> None:
            repo = self._allowed(name, revision)
            if repo is None:
                return
            if path not in repo.files:
                self._send(404, {"X-Error-Code": "EntryNotFound"}, b"")
                return
            content = repo.files[path]
            headers = {"X-Repo-Commit": repo.commit, "ETag": f'"{fault.etag or sha1(content)}"'}
            if is_large(path, content):
                linked = fault.etag or sha256(content)
                headers |= {"X-Linked-Etag": f'"{linked}"', "X-Linked-Size": str(len(content))}
                headers |= {"Location": f"http://localhost:{hub.port}/cdn/{name}/x/{path}"}
                self._send(302, headers, b"")
            else:
                self._send_file(content, path, fault, headers)

        def _send_file(
            self,
            content: bytes,
            path: str,
            fault: Fault,
            headers: Mapping[str, str] = {},
        ) -> None:
            start, stop, status, more = 0, len(content), 200, dict(headers)
            more.setdefault("ETag", f'"{sha256(content)}"')
            wish = self.headers.get("Range", "")
            if wish and not fault.ignore_range:
                first, _, last = wish.removeprefix("bytes=").partition("-")
                start, stop = int(first), min(int(last) + 1, stop) if last else stop
                if start >= len(content):
                    self._send(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
                    return
                status, more["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{len(content)}"
            if fault.flip_at is not None:
                changed = bytearray(content)
                changed[fault.flip_at] ^= 1
                content = bytes(changed)
            self._send(status, {**more, "Accept-Ranges": "bytes"}, content[start:stop], fault, path)

        def _send(
            self,
            status: int,
            headers: Mapping[str, str],
            body: bytes,
            fault: Fault = Fault(""),  # noqa: B008
            name: str = "",
        ) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            sendable = body if fault.cut_at is None else body[: fault.cut_at]
            for start in range(0, len(sendable), CHUNK_BYTES):
                chunk = sendable[start : start + CHUNK_BYTES]
                hub.served[name] += len(chunk)
                self.wfile.write(chunk)
                if fault.bytes_per_s:
                    time.sleep(len(chunk) / fault.bytes_per_s)
            if len(sendable) < len(body):
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def handle(self) -> None:
            with contextlib.suppress(ConnectionResetError):  # a client that was killed
                super().handle()

    return Handler


def _mode(entry: Mapping[str, Any]) -> str:
    return "lfs" if entry["path"].endswith(LARGE_SUFFIXES) or entry["size"] > LARGE_BYTES else "regular"


def _sibling(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": sha1(content)}
    if is_large(path, content):
        entry["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def _tree_entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": sha1(content)}
    if is_large(path, content):
        entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
    return entry
