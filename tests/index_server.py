"""A package index on loopback: what the tests resolve from and download from.

It runs in threads of its own, writes down every request, can be made to misbehave, and closes cleanly::

    with IndexServer() as index:
        index.add_wheel("demo-pkg", "1.0", requires=["other>=2"])
        resolve_from(index.url)
        index.behaviour.failures["/files/"] = 503
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tests.crafted_wheels import PublishedFile, build_wheel, normalise
from tests.loopback import LOOPBACK, LoggedRequest, LoopbackHandler, LoopbackServer
from tests.proxy_server import ProxyServer

if TYPE_CHECKING:
    import trustme

__all__ = ["Behaviour", "IndexServer", "LoggedRequest", "ProxyServer", "PublishedFile", "build_wheel"]

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPE = "text/html"


@dataclass
class Behaviour:
    """How the index misbehaves. Change it at any time; keys of mappings are beginnings of URL paths.

    Attributes:
        credentials: (user, password) that every request must bring; None lets everybody in.
        failures: Path prefix -> HTTP status.
        failures_left: Path prefix -> how many more requests fail before it recovers; without an entry, all.
        wrong_content: Files that are served with other bytes than the listing's hash says, same length.
        missing: Files that are listed and answer 404.
        stalled: Files of which half is sent, and then nothing until `release` is called.
        nonsense: Path prefixes that are answered with 200 and words that mean nothing.
        silent: Path prefixes that get no answer until `release` is called.
        html_only: Speak only the older form of the index API (PEP 503).
        without_metadata: Do not offer PEP 658 metadata files.
        without_size: Do not say sizes.
    """

    credentials: tuple[str, str] | None = None
    failures: dict[str, int] = field(default_factory=dict)
    failures_left: dict[str, int] = field(default_factory=dict)
    wrong_content: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    stalled: set[str] = field(default_factory=set)
    nonsense: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    html_only: bool = False
    without_metadata: bool = False
    without_size: bool = False


class IndexServer(LoopbackServer):
    """A package index: PEP 503 (HTML), PEP 691 (JSON) and PEP 658 (metadata files), on plain HTTP or TLS.

    Args:
        authority: Serve TLS with a certificate of this `trustme.CA`.
        host: The name in `url` and in the certificate. Another one than loopback is reachable only through a
            `ProxyServer` that knows it.
    """

    def __init__(self, *, authority: trustme.CA | None = None, host: str = LOOPBACK) -> None:
        context = None
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(host, "localhost").configure_cert(context)
        self.behaviour = Behaviour()
        self.files: dict[str, PublishedFile] = {}
        self.released = threading.Event()
        self._lock = threading.Lock()
        super().__init__(_IndexHandler, context)
        self.host = host
        self.origin = f"{'https' if authority else 'http'}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """What goes into `index_url`; without credentials."""
        return f"{self.origin}/simple/"

    def url_with_credentials(self, user: str, password: str) -> str:
        """The same with `user:password@`."""
        return self.url.replace("://", f"://{user}:{password}@", 1)

    def file_url(self, file: PublishedFile) -> str:
        """Where a file is served."""
        return f"{self.origin}/files/{file.filename}"

    def add_wheel(
        self,
        name: str,
        version: str,
        requires: Iterable[str] = (),
        files: Mapping[str, str | bytes] | None = None,
        tags: str = "py3-none-any",
        *,
        python_requires: str = "",
        extras: Iterable[str] = (),
        entry_points: str = "",
        yanked: str = "",
    ) -> PublishedFile:
        """Publish a crafted wheel; see `build_wheel`."""
        filename, content, metadata = build_wheel(
            name,
            version,
            requires=requires,
            files=files,
            tags=tags,
            python_requires=python_requires,
            extras=extras,
            entry_points=entry_points,
        )
        return self.add_file(
            PublishedFile(
                name=normalise(name),
                version=version,
                filename=filename,
                content=content,
                requires_python=python_requires,
                metadata=metadata,
                yanked=yanked,
            )
        )

    def add_sdist(self, name: str, version: str, *, python_requires: str = "") -> PublishedFile:
        """Publish a source distribution that fails loudly if anybody builds it."""
        content = f"# {name} {version}: nobody should unpack this".encode()
        return self.add_file(
            PublishedFile(
                name=normalise(name),
                version=version,
                filename=f"{normalise(name).replace('-', '_')}-{version}.tar.gz",
                content=content,
                requires_python=python_requires,
            )
        )

    def add_file(self, file: PublishedFile) -> PublishedFile:
        """Publish a file as it is."""
        with self._lock:
            self.files[file.filename] = file
        return file

    def remove(self, name: str, version: str | None = None) -> None:
        """Take a package, or one version of it, off the index."""
        with self._lock:
            self.files = {
                filename: file
                for filename, file in self.files.items()
                if file.name != normalise(name) or (version is not None and file.version != version)
            }

    def listing(self, name: str) -> list[PublishedFile]:
        """The files of one package."""
        with self._lock:
            return [file for file in self.files.values() if file.name == name]

    def release(self) -> None:
        """Let stalled downloads go on."""
        self.released.set()

    def export(self, folder: Path) -> str:
        """Write everything as a folder in PEP 503's layout; returns its `file://` URL."""
        for file in self.files.values():
            place = folder / file.name
            place.mkdir(parents=True, exist_ok=True)
            (place / file.filename).write_bytes(file.content)
        for place in folder.iterdir():
            links = "".join(
                f'<a href="{file.filename}#sha256={file.sha256}">{file.filename}</a>\n'
                for file in self.listing(place.name)
            )
            (place / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")
        return folder.as_uri()

    def paths(self, prefix: str = "") -> list[str]:
        """The paths that were asked for, in order."""
        return [request.path for request in self.requests if request.path.startswith(prefix)]

    def close(self) -> None:
        self.released.set()
        super().close()


class _IndexHandler(LoopbackHandler):
    owner: IndexServer

    def do_HEAD(self) -> None:  # noqa: N802 - named by http.server
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802 - named by http.server
        target = urlsplit(self.path)
        path = unquote(target.path)
        behaviour = self.owner.behaviour
        self.owner.note(LoggedRequest(method=self.command, path=path, headers=dict(self.headers), query=target.query))
        if behaviour.credentials is not None and not self._authorised(behaviour.credentials):
            self.answer(401, b"credentials, please", WWW_Authenticate='Basic realm="index"')
            return
        if path.startswith(tuple(behaviour.silent)):
            self.owner.released.wait(60)
        for prefix, status in behaviour.failures.items():
            if path.startswith(prefix) and self._fails_now(prefix):
                self.answer(status, b"failing on purpose")
                return
        if path.startswith(tuple(behaviour.nonsense)):
            self.answer(200, b"{<what?", Content_Type=JSON_TYPE)
        elif path.startswith("/simple/"):
            self._list(path.removeprefix("/simple/").strip("/"))
        elif path.startswith("/files/"):
            self._serve(path.removeprefix("/files/"))
        else:
            self.answer(404)

    def _fails_now(self, prefix: str) -> bool:
        left = self.owner.behaviour.failures_left
        if prefix not in left:
            return True
        left[prefix] -= 1
        return left[prefix] >= 0

    def _authorised(self, credentials: tuple[str, str]) -> bool:
        expected = base64.b64encode(":".join(credentials).encode()).decode()
        return self.headers.get("Authorization") == f"Basic {expected}"

    def _list(self, name: str) -> None:
        files = self.owner.listing(name)
        if not files:
            self.answer(404)
        elif JSON_TYPE in self.headers.get("Accept", "") and not self.owner.behaviour.html_only:
            self.answer(200, self._json(name, files), Content_Type=JSON_TYPE, Cache_Control="max-age=0")
        else:
            self.answer(200, self._html(files), Content_Type=HTML_TYPE, Cache_Control="max-age=0")

    def _json(self, name: str, files: list[PublishedFile]) -> bytes:
        behaviour = self.owner.behaviour
        entries = []
        for file in files:
            entry: dict[str, object] = {
                "filename": file.filename,
                "url": self.owner.file_url(file),
                "hashes": {"sha256": file.sha256},
                "upload-time": "2026-01-01T00:00:00Z",
                "yanked": file.yanked or False,
            }
            if not behaviour.without_size:
                entry["size"] = file.size_bytes
            if file.requires_python:
                entry["requires-python"] = file.requires_python
            if file.metadata is not None and not behaviour.without_metadata:
                entry["core-metadata"] = {"sha256": hashlib.sha256(file.metadata).hexdigest()}
            entries.append(entry)
        versions = sorted({file.version for file in files})
        return json.dumps(
            {"meta": {"api-version": "1.1"}, "name": name, "versions": versions, "files": entries}
        ).encode()

    def _html(self, files: list[PublishedFile]) -> bytes:
        lines = []
        for file in files:
            requires = f' data-requires-python="{html.escape(file.requires_python)}"' if file.requires_python else ""
            metadata = ""
            if file.metadata is not None and not self.owner.behaviour.without_metadata:
                metadata = f' data-core-metadata="sha256={hashlib.sha256(file.metadata).hexdigest()}"'
            href = f"/files/{file.filename}#sha256={file.sha256}"
            lines.append(f'<a href="{href}"{requires}{metadata}>{file.filename}</a><br>')
        return f"<!DOCTYPE html><html><body>{''.join(lines)}</body></html>".encode()

    def _serve(self, filename: str) -> None:
        behaviour = self.owner.behaviour
        wanted = filename.removesuffix(".metadata")
        file = self.owner.files.get(wanted)
        if file is None or (wanted in behaviour.missing and wanted == filename):
            self.answer(404)
            return
        if wanted != filename:
            if file.metadata is None or behaviour.without_metadata:
                self.answer(404)
            else:
                self.answer(200, file.metadata)
            return
        content = bytes(byte ^ 1 for byte in file.content) if filename in behaviour.wrong_content else file.content
        if filename in behaviour.stalled and self.command == "GET":
            self._stall(content)
        else:
            self.answer(200, content, Content_Type="application/octet-stream")

    def _stall(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        self.wfile.flush()
        self.owner.released.wait(60)
        self.wfile.write(content[half:])
