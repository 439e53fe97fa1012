"""The package index of a measurement: on loopback, so that all contestants fetch the same files from the same place.

    python -m benchmarks.mirror FOLDER INDEX_URL     prints its origin, and serves until its input ends

Pages and files come from INDEX_URL once and stay in FOLDER; after `GET /freeze` nothing is fetched any more. Every
contestant has an index of its own, `<origin>/fast/<word>/simple/`, or `slow` for one behind 100 Mbit/s that all
connections share. `GET /served/<word>` says which whole files that one was sent since it was asked last: file name ->
bytes.
Wheels in the folders that PIP_FIND_LINKS names are on it, too: builds that no index has, as torch without CUDA.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import requests
import uv
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
SLOW_BYTES_PER_SECOND = 100 * 10**6 / 8
LOOPBACK = "127.0.0.1"

_CHUNK_BYTES = 64 * 1024
_PATH = re.compile(r"/(?P<speed>fast|slow)/(?P<word>[a-z0-9-]+)/(?P<rest>simple|files)/(?P<name>.+)")
_NAME = re.compile(r"[a-z0-9-]+")
_FILE = re.compile(r"(?P<sha256>[0-9a-f]{64})/(?P<filename>[A-Za-z0-9._+!-]+)")


class Mirror:
    """A mirror in a process of its own; a context manager."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.mirror", str(folder), usual_index()]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stdout = self._process.stdout
        self.origin = stdout.readline().strip() if stdout is not None else ""
        if not self.origin:
            raise RuntimeError("the index of the benchmarks did not start; what it says is above")

    def index_url(self, word: str, *, slow: bool = False) -> str:
        """An index of this contestant's own."""
        return f"{self.origin}/{'slow' if slow else 'fast'}/{word}/simple/"

    def served(self, word: str) -> dict[str, int]:
        """Bytes by file name that this contestant was sent since this was asked last."""
        answer = requests.get(f"{self.origin}/served/{word}", timeout=60)
        answer.raise_for_status()
        found: dict[str, int] = answer.json()
        return found

    def freeze(self) -> None:
        """Fetch nothing any more: what is not there is a 404."""
        requests.get(f"{self.origin}/freeze", timeout=60).raise_for_status()

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def local_wheels() -> dict[str, list[Path]]:
    """The wheels in folders that PIP_FIND_LINKS names, by normalised name."""
    found: dict[str, list[Path]] = {}
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        for wheel in sorted(Path(folder).glob("*.whl")):
            try:
                name = parse_wheel_filename(wheel.name)[0]
            except InvalidWheelFilename:
                continue
            found.setdefault(name, []).append(wheel)
    return found


def usual_index() -> str:
    """The index that uv asks in this environment."""
    command = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--emit-index-url", "-"]
    printed = subprocess.run(command, input="", check=True, capture_output=True, text=True).stdout
    found = re.search(r"^--index-url (\S+)$", printed, re.MULTILINE)
    if found is None:
        raise RuntimeError("uv names no package index")
    return found[1]


class _Shelf:
    """Pages and files on disk, fetched where they are missing and that is still allowed."""

    def __init__(self, folder: Path, index_url: str) -> None:
        self._folder = folder
        self._index_url = index_url.rstrip("/")
        self._session = requests.Session()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._pages: dict[str, dict[str, Any] | None] = {}
        self._sources: dict[str, str] = {}
        self._local = local_wheels()
        self._local_files: dict[str, Path] = {}
        self.frozen = False

    def page(self, name: str) -> dict[str, Any] | None:
        """The upstream's JSON page of a package; None where it has none."""
        with self._locks[name]:
            if name not in self._pages:
                self._pages[name] = page = self._with_local(name, self._load(name))
                for file in page["files"] if page is not None else ():
                    sha256 = file["hashes"].get("sha256", "")
                    self._sources[f"{sha256}/{file['filename']}"] = requests.compat.urljoin(
                        f"{self._index_url}/{name}/", file["url"]
                    )
            return self._pages[name]

    def file(self, sha256: str, filename: str) -> Path | None:
        """A file of a page that was asked for before; with `.metadata` its metadata."""
        if f"{sha256}/{filename}" in self._local_files:
            return self._local_files[f"{sha256}/{filename}"]
        path = self._folder / "files" / sha256[:2] / sha256 / filename
        with self._locks[str(path)]:
            if not path.exists():
                source = self._sources.get(f"{sha256}/{filename.removesuffix('.metadata')}")
                if source is None or self.frozen:
                    return None
                answer = self._session.get(source + filename[len(filename.removesuffix(".metadata")) :], timeout=300)
                if not answer.ok:
                    return None
                _write(path, answer.content)
        return path

    def _with_local(self, name: str, page: dict[str, Any] | None) -> dict[str, Any] | None:
        wheels = self._local.get(name, ())
        if not wheels:
            return page
        page = page or {"meta": {"api-version": "1.1"}, "name": name, "files": []}
        for wheel in wheels:
            sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
            self._local_files[f"{sha256}/{wheel.name}"] = wheel
            size = wheel.stat().st_size
            page["files"].append({"filename": wheel.name, "url": "", "hashes": {"sha256": sha256}, "size": size})
        return page

    def _load(self, name: str) -> dict[str, Any] | None:
        path = self._folder / "pages" / f"{name}.json"
        if not path.exists():
            if self.frozen:
                return None
            answer = self._session.get(f"{self._index_url}/{name}/", headers={"Accept": JSON_TYPE}, timeout=60)
            if answer.status_code != requests.codes.not_found:
                answer.raise_for_status()
            _write(path, answer.content if answer.ok else b"null")
        page: dict[str, Any] | None = json.loads(path.read_bytes())
        return page


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part-{threading.get_ident()}")
    part.write_bytes(content)
    part.rename(path)


class _Line:
    """A line that all slow connections share."""

    def __init__(self, bytes_per_second: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, size_bytes: int) -> None:
        """Wait until so many bytes have passed."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size_bytes / self._bytes_per_second
            wait = self._free_at - time.monotonic()
        time.sleep(max(0.0, wait))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, shelf: _Shelf) -> None:
        self.shelf = shelf
        self.line = _Line(SLOW_BYTES_PER_SECOND)
        self.served: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.lock = threading.Lock()
        self.answers: dict[tuple[str, str], bytes] = {}
        super().__init__((LOOPBACK, 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """What was served is counted instead of being printed."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/freeze":
            self.server.shelf.frozen = True
            self._answer(b"")
        elif path.startswith("/served/"):
            with self.server.lock:
                self._answer(json.dumps(self.server.served.pop(path.removeprefix("/served/"), {})).encode())
        else:
            found = _PATH.fullmatch(path)
            if found is None:
                self._missing()
            elif found["rest"] == "simple":
                self._page(found["speed"], found["word"], found["name"].rstrip("/"))
            else:
                self._file(found["speed"], found["word"], found["name"])

    def _page(self, speed: str, word: str, name: str) -> None:
        page = self.server.shelf.page(name) if _NAME.fullmatch(name) else None
        if page is None:
            self._missing()
            return
        prefix = f"/{speed}/{word}"
        body = self.server.answers.get((prefix, name))
        if body is None:
            files = [{**file, "url": self._place(prefix, file)} for file in page["files"] if "sha256" in file["hashes"]]
            body = self.server.answers[prefix, name] = json.dumps({**page, "files": files}).encode()
        if speed == "slow":
            self.server.line.take(len(body))
        self._answer(body, **{"Content-Type": JSON_TYPE, "Cache-Control": "max-age=600, public"})

    def _place(self, prefix: str, file: dict[str, Any]) -> str:
        host, port = self.server.server_address[:2]
        return f"http://{host!s}:{port}{prefix}/files/{file['hashes']['sha256']}/{file['filename']}"

    def _file(self, speed: str, word: str, name: str) -> None:
        found = _FILE.fullmatch(name)
        path = self.server.shelf.file(found["sha256"], found["filename"]) if found is not None else None
        if path is None:
            self._missing()
            return
        size_bytes = path.stat().st_size
        start, end = 0, size_bytes
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is not None:
            start, end = int(wanted[1]), min(size_bytes, int(wanted[2]) + 1) if wanted[2] else size_bytes
        self.send_response(200 if wanted is None else 206)
        if wanted is not None:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size_bytes}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Cache-Control", "max-age=365000000, immutable, public")
        self.end_headers()
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            if speed == "fast":
                self.wfile.flush()
                self.connection.sendfile(file, start, end - start)
            else:
                self._send_slowly(file, start, end)
        if wanted is None:  # else it is metadata, read out of an archive
            with self.server.lock:
                self.server.served[word][path.name] += end - start

    def _send_slowly(self, file: IO[bytes], start: int, end: int) -> None:
        file.seek(start)
        left = end - start
        while left and (chunk := file.read(min(_CHUNK_BYTES, left))):
            self.server.line.take(len(chunk))
            self.wfile.write(chunk)
            left -= len(chunk)

    def _answer(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main(folder: str, index_url: str) -> None:
    """Serve until the input ends, which it does when whoever started this has gone."""
    with _Server(_Shelf(Path(folder), index_url)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"http://{LOOPBACK}:{server.server_address[1]}", flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
