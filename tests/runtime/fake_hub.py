"""A Hugging Face hub on this machine: its HTTP API for downloads and uploads, and its lies."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_right"
COMMIT = "a" * 40
# Files over this size go to LFS, as ONNX graphs do on the real one.
LARGE = 2_000
Lie = Callable[[str, bytes], bytes]


class FakeHub:
    """Repositories of one commit each, in memory.

    Attributes:
        files: The files by repository and name.
        private: repositories that need the token.
        gated: repositories that nobody has access to.
        moved: names that lead to another one.
        tags: further names of the commit.
        fail: status to answer with, by method and a part of the path.
        lie: changes the bytes of a file as they are sent, its stated size and hash staying.
        restate: changes the bytes of a file with its stated size and hash.
        received: LFS objects by hash.
        uploads: how many LFS objects were sent.
        created: The options of the repositories that were made.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.moved: dict[str, str] = {}
        self.tags: set[str] = set()
        self.fail: dict[tuple[str, str], int] = {}
        self.lie: Lie = lambda _, data: data
        self.restate: Lie = lambda _, data: data
        self.received: dict[str, bytes] = {}
        self.uploads = 0
        self.created: list[dict] = []
        self.asked: list[str] = []
        self.url = ""

    def add(self, name: str, directory: Path) -> None:
        files = (p for p in directory.rglob("*") if p.is_file())
        self.files[name] = {p.relative_to(directory).as_posix(): p.read_bytes() for p in files}

    @contextmanager
    def running(self) -> Iterator[FakeHub]:
        handler = type("Handler", (_Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_HEAD(self) -> None:
        self.answer("HEAD")

    def do_GET(self) -> None:
        self.answer("GET")

    def do_POST(self) -> None:
        self.answer("POST")

    def do_PUT(self) -> None:
        self.answer("PUT")

    def answer(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{method} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
        for (verb, part), status in self.hub.fail.items():
            if verb == method and part in path:
                return self.reply(status, {"error": f"told to fail with {status}"})
        for pattern, action in ROUTES:
            found = re.fullmatch(pattern, path)
            if found:
                return action(self, body, **found.groupdict())
        return self.reply(404, {"error": f"no route for {path}"})

    def chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def reply(self, status: int, content: object = None, code: str | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def visible(self, name: str, revision: str) -> bool:
        """Whether a repository is shown to who asks; else the answer is given."""
        hub = self.hub
        if name in hub.gated:
            self.reply(403, {"error": "gated"}, "GatedRepo")
        elif name not in hub.files or (name in hub.private and not self.known()):
            self.reply(401, {"error": "who are you"}, "RepoNotFound")
        elif revision not in ("main", COMMIT, *hub.tags):
            self.reply(404, {"error": "no revision"}, "RevisionNotFound")
        else:
            return True
        return False

    def resolve(self, _: bytes, name: str, revision: str, file: str) -> None:
        if name in self.hub.moved:
            self.send_response(307)
            self.send_header("Location", f"/{self.hub.moved[name]}/resolve/{revision}/{file}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if not self.visible(name, revision):
            return
        if file not in self.hub.files[name]:
            self.reply(404, {"error": "no file"}, "EntryNotFound")
            return
        stated = self.hub.restate(file, self.hub.files[name][file])
        sent = self.hub.lie(file, stated)
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(stated).hexdigest()}"')
        self.send_header("Content-Length", str(len(stated)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(sent)
            self.close_connection = len(sent) != len(stated)

    def about(self, _: bytes, name: str, revision: str = "main") -> None:
        if self.visible(name, revision):
            siblings = [{"rfilename": file} for file in self.hub.files[name]]
            self.reply(200, {"id": name, "sha": COMMIT, "siblings": siblings})

    def tree(self, _: bytes, name: str, revision: str) -> None:
        if self.visible(name, revision):
            self.reply(200, [self.record(f, d) for f, d in self.hub.files[name].items()])

    def paths(self, body: bytes, name: str, revision: str) -> None:
        wanted = set(re.findall(r"paths=([^&]+)", unquote(body.decode())))
        if body.startswith(b"{"):
            wanted = set(json.loads(body)["paths"])
        if self.visible(name, revision):
            files = self.hub.files[name].items()
            self.reply(200, [self.record(f, d) for f, d in files if f in wanted])

    def record(self, file: str, data: bytes) -> dict:
        data = self.hub.restate(file, data)
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        found = {"type": "file", "path": file, "size": len(data), "oid": git}
        if len(data) > LARGE:
            oid = hashlib.sha256(data).hexdigest()
            found["lfs"] = {"size": len(data), "oid": oid, "pointerSize": 130}
        return found

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        self.hub.created.append(asked)
        url = f"{self.hub.url}/{name}"
        if not self.known():
            self.reply(401, {"error": "who are you"})
        elif name in self.hub.files:
            self.reply(409, {"error": "there already", "url": url})
        else:
            self.hub.files[name] = {}
            self.reply(200, {"url": url, "id": name})

    def validate(self, body: bytes) -> None:
        front = json.loads(body)["content"].startswith("---\n")
        errors = [] if front else [{"message": "no front matter"}]
        self.reply(200 if front else 400, {"errors": errors, "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if self.visible(name, revision):
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["size"] > LARGE else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(body)["files"]
            ]
            self.reply(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        if not self.visible(name, "main"):
            return
        objects = []
        for wanted in json.loads(body)["objects"]:
            upload = {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}
            there = wanted["oid"] in self.hub.received
            objects.append(wanted if there else {**wanted, "actions": {"upload": upload}})
        self.reply(200, {"transfer": "basic", "objects": objects})

    def take(self, body: bytes, oid: str) -> None:
        self.hub.uploads += 1
        self.hub.received[oid] = body
        self.reply(200, {})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        if not self.visible(name, revision):
            return
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.hub.files[name][value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                self.hub.files[name][value["path"]] = self.hub.received[value["oid"]]
        url = f"{self.hub.url}/{name}/commit/{COMMIT}"
        self.reply(200, {"commitUrl": url, "commitOid": COMMIT, "success": True})


NAME = r"(?P<name>[^/]+/[^/]+)"
# A data set is a repository of this name.
DATA = r"(?P<name>datasets/[^/]+/[^/]+)"
AT = r"(?P<revision>[^/]+)"
ROUTES: tuple[tuple[str, Callable[..., None]], ...] = (
    (rf"/{DATA}/resolve/{AT}/(?P<file>.+)", _Handler.resolve),
    (rf"/api/{DATA}/revision/{AT}", _Handler.about),
    (rf"/api/{DATA}", _Handler.about),
    (rf"/{NAME}/resolve/{AT}/(?P<file>.+)", _Handler.resolve),
    (rf"/api/models/{NAME}/revision/{AT}", _Handler.about),
    (rf"/api/models/{NAME}/tree/{AT}", _Handler.tree),
    (rf"/api/models/{NAME}/paths-info/{AT}", _Handler.paths),
    (rf"/api/models/{NAME}/preupload/{AT}", _Handler.preupload),
    (rf"/api/models/{NAME}/commit/{AT}", _Handler.commit),
    (rf"/api/models/{NAME}", _Handler.about),
    ("/api/repos/create", _Handler.create),
    ("/api/validate-yaml", _Handler.validate),
    (rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.take),
)
