"""A registry on loopback: as much of the OCI distribution specification as pulls and pushes need.

It runs in threads of its own, writes down every request, and can be made to misbehave::

    with RegistryServer() as registry:
        registry.behaviour.failures["PATCH"] = 503
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from tests.loopback import LOOPBACK, LoggedRequest, LoopbackHandler, LoopbackServer

if TYPE_CHECKING:
    import trustme

_PATH = re.compile(r"/v2/(?P<repository>.+?)/(?P<kind>manifests|blobs/uploads|blobs)/(?P<name>.*)")


@dataclass
class Behaviour:
    """How the registry misbehaves. Change it at any time.

    Attributes:
        credentials: (user, password) that every request must bring; None lets everybody in.
        tokens: Whether these are brought to a token server, which is this one, too.
        read_only: Answer what writes as Debian's registry does when it is read-only.
        failures: Beginning of `METHOD path` -> HTTP status.
        dies_after_bytes: The connection of an upload ends after so many bytes, once.
        silent: Beginnings of `METHOD path` that get no answer until `release` is called.
        seconds_per_chunk: What it waits before each 64 KiB of a blob that it sends.
        mounts: Whether it takes over layers from other repositories.
        forgets: How often it has lost a blob by the time that the manifest comes.
        unreadable: How often it cannot read a tag once it has blobs, as while somebody else writes the tag.
    """

    credentials: tuple[str, str] | None = None
    tokens: bool = False
    read_only: bool = False
    failures: dict[str, int] = field(default_factory=dict)
    dies_after_bytes: int | None = None
    silent: set[str] = field(default_factory=set)
    seconds_per_chunk: float = 0
    mounts: bool = True
    forgets: int = 0
    unreadable: int = 0


class RegistryServer(LoopbackServer):
    """Keeps blobs by repository and digest, and manifests by repository and tag or digest, in memory.

    Args:
        authority: Serve TLS with a certificate of this `trustme.CA`.
    """

    def __init__(self, *, authority: trustme.CA | None = None) -> None:
        context = None
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(LOOPBACK, "localhost").configure_cert(context)
        self.behaviour = Behaviour()
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.released = threading.Event()
        self.given: set[str] = set()
        super().__init__(_Handler, context)
        self.scheme = "https" if authority else "http"
        self.host = f"{LOOPBACK}:{self.port}"

    def tags(self, repository: str) -> set[str]:
        """Without digests."""
        return {name for place, name in self.manifests if place == repository and ":" not in name}

    def put_manifest(self, repository: str, name: str, media_type: str, content: bytes) -> None:
        """Put one under its digest and a tag, whatever is there."""
        for one in (name, digest_of(content)):
            self.manifests[repository, one] = media_type, content

    def asked(self, method: str) -> list[str]:
        """The paths of all requests of this method."""
        return [request.path for request in self.requests if request.method == method]

    def release(self) -> None:
        """Answer what was left without an answer."""
        self.released.set()

    def close(self) -> None:
        self.release()
        super().close()


def digest_of(content: bytes) -> str:
    """`sha256:` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Handler(LoopbackHandler):
    owner: RegistryServer

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.owner.note(LoggedRequest(method=self.command, path=url.path, headers=dict(self.headers), query=url.query))
        asked, behaviour = f"{self.command} {url.path}", self.owner.behaviour
        if any(map(asked.startswith, behaviour.silent)):
            self.owner.released.wait(60)
        status = next((code for begin, code in behaviour.failures.items() if asked.startswith(begin)), None)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path == "/token":
            self._token()
        elif not self._admitted(url.path, query):
            pass
        elif status is not None:
            self._refuse(status)
        elif behaviour.read_only and self.command not in ("GET", "HEAD"):
            self._refuse(405)
        elif url.path == "/v2/":
            self.answer(200, b"{}")
        else:
            self._dispatch(url.path, query)

    def _refuse(self, status: int) -> None:
        self.close_connection = True  # what was sent is not read
        self.answer(status, b'{"errors": []}', Connection="close")

    # -- who may -----------------------------------------------------------------------------------------------------

    def _admitted(self, path: str, query: dict[str, str]) -> bool:
        credentials, given = self.owner.behaviour.credentials, self.headers.get("Authorization", "")
        if credentials is None or (given == _basic(credentials) and not self.owner.behaviour.tokens):
            return True
        found = _PATH.fullmatch(path)
        scopes = [f"repository:{found['repository']}:pull,push"] if found else []
        if "from" in query:
            scopes.append(f"repository:{query['from']}:pull")
        if given.removeprefix("Bearer ") in self.owner.given and self.owner.behaviour.tokens:
            return True
        challenge = 'Basic realm="registry"'
        if self.owner.behaviour.tokens:
            realm = f"{self.owner.scheme}://{self.owner.host}/token"
            challenge = f'Bearer realm="{realm}",service="registry",scope="{" ".join(scopes)}"'
        self.close_connection = True
        self.answer(401, b'{"errors": []}', WWW_Authenticate=challenge, Connection="close")
        return False

    def _token(self) -> None:
        if self.headers.get("Authorization") != _basic(self.owner.behaviour.credentials or ("", "")):
            self.answer(401)
            return
        token = secrets.token_hex(16)
        self.owner.given.add(token)
        self.answer(200, json.dumps({"token": token}).encode())

    # -- what is there -----------------------------------------------------------------------------------------------

    def _dispatch(self, path: str, query: dict[str, str]) -> None:
        found = _PATH.fullmatch(path)
        if found is None:
            self._refuse(404)
            return
        repository, kind, name = found.group("repository", "kind", "name")
        if kind == "manifests":
            self._manifest(repository, name)
        elif kind == "blobs":
            self._blob(repository, name)
        elif self.command == "POST":
            self._begin(repository, query)
        else:
            self._go_on(repository, name, query)

    def _manifest(self, repository: str, name: str) -> None:
        if self.command == "PUT":
            content = b"".join(self._body())
            document = json.loads(content)
            blobs = [document["config"], *document["layers"]] if "layers" in document else []
            if blobs and self.owner.behaviour.forgets:
                self.owner.behaviour.forgets -= 1
                del self.owner.blobs[repository, blobs[-1]["digest"]]
            if any((repository, blob["digest"]) not in self.owner.blobs for blob in blobs):
                self.answer(400, b'{"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}')
                return
            self.owner.put_manifest(repository, name, self.headers["Content-Type"], content)
            self.answer(201, Docker_Content_Digest=digest_of(content))
        elif self.owner.blobs and self.owner.behaviour.unreadable:
            self.owner.behaviour.unreadable -= 1
            self.answer(500, b'{"errors": [{"code": "UNKNOWN"}]}')
        elif (repository, name) in self.owner.manifests:
            media_type, content = self.owner.manifests[repository, name]
            self.answer(200, content, Content_Type=media_type, Docker_Content_Digest=digest_of(content))
        else:
            self.answer(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')

    def _blob(self, repository: str, name: str) -> None:
        content = self.owner.blobs.get((repository, name))
        if content is None:
            self.answer(404, b'{"errors": [{"code": "BLOB_UNKNOWN"}]}')
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Docker-Content-Digest", name)
        self.end_headers()
        if self.command != "HEAD":
            for start in range(0, len(content), 65536):
                self.owner.closing.wait(self.owner.behaviour.seconds_per_chunk)
                self.wfile.write(content[start : start + 65536])

    # -- uploads -----------------------------------------------------------------------------------------------------

    def _begin(self, repository: str, query: dict[str, str]) -> None:
        list(self._body())
        source = self.owner.blobs.get((query.get("from", ""), query.get("mount", "")))
        if source is not None and self.owner.behaviour.mounts:
            self.owner.blobs[repository, query["mount"]] = source
            self.answer(201, Location=f"/v2/{repository}/blobs/{query['mount']}")
            return
        upload = secrets.token_hex(8)
        self.owner.uploads[upload] = bytearray()
        self.answer(202, Location=f"/v2/{repository}/blobs/uploads/{upload}?_state=secret-{upload}")

    def _go_on(self, repository: str, name: str, query: dict[str, str]) -> None:
        upload = self.owner.uploads.get(name)
        if upload is None or query.get("_state") != f"secret-{name}":
            self._refuse(404)
            return
        if self.command == "DELETE":
            del self.owner.uploads[name]
            self.answer(204)
            return
        for chunk in self._body():
            upload += chunk
            dies_after_bytes = self.owner.behaviour.dies_after_bytes
            if dies_after_bytes is not None and len(upload) >= dies_after_bytes:
                self.owner.behaviour.dies_after_bytes = None
                self.close_connection = True
                self.connection.shutdown(2)
                return
        if self.command == "PATCH":
            self.answer(202, Location=f"{self.path}")
            return
        if digest_of(bytes(upload)) != query["digest"]:
            self.answer(400, b'{"errors": [{"code": "DIGEST_INVALID"}]}')
            return
        self.owner.blobs[repository, query["digest"]] = bytes(upload)
        del self.owner.uploads[name]
        self.answer(201, Docker_Content_Digest=query["digest"])

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left and (chunk := self.rfile.read(min(left, 65536))):
            left -= len(chunk)
            yield chunk


def _basic(credentials: tuple[str, str]) -> str:
    return f"Basic {base64.b64encode(':'.join(credentials).encode()).decode()}"
