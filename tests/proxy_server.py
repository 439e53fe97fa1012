"""A proxy on loopback."""

from __future__ import annotations

import base64
import select
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from tests.loopback import LOOPBACK, LoggedRequest, LoopbackHandler, LoopbackServer


class ProxyServer(LoopbackServer):
    """A forward proxy: absolute-form requests and CONNECT tunnels.

    Args:
        hosts: Names that only this proxy knows, each with the loopback port that it leads to.
        credentials: (user, password) that every request must bring.
    """

    def __init__(self, *, hosts: Mapping[str, int] | None = None, credentials: tuple[str, str] | None = None) -> None:
        self.hosts = dict(hosts or {})
        self.credentials = credentials
        super().__init__(_ProxyHandler)

    @property
    def url(self) -> str:
        """What goes into `HTTPS_PROXY`."""
        return f"http://{LOOPBACK}:{self.port}"

    def url_with_credentials(self) -> str:
        """The same with the credentials that it wants."""
        assert self.credentials is not None
        return self.url.replace("://", "://{}:{}@".format(*self.credentials), 1)

    def address(self, host: str, port: int) -> tuple[str, int]:
        """Where a name leads."""
        return (LOOPBACK, self.hosts[host]) if host in self.hosts else (host, port)

    def tunnels(self) -> list[str]:
        """The `host:port` of each CONNECT, in order."""
        return [request.path for request in self.requests if request.method == "CONNECT"]


class _ProxyHandler(LoopbackHandler):
    owner: ProxyServer

    def _admitted(self) -> bool:
        self.owner.note(LoggedRequest(method=self.command, path=self.path, headers=dict(self.headers)))
        if self.owner.credentials is None:
            return True
        expected = base64.b64encode(":".join(self.owner.credentials).encode()).decode()
        if self.headers.get("Proxy-Authorization") == f"Basic {expected}":
            return True
        self.answer(407, b"", Proxy_Authenticate='Basic realm="proxy"')
        return False

    def do_CONNECT(self) -> None:  # noqa: N802 - named by http.server
        if not self._admitted():
            return
        host, _, port = self.path.rpartition(":")
        try:
            upstream = socket.create_connection(self.owner.address(host, int(port)), timeout=10)
        except OSError:
            self.answer(502)
            return
        self.send_response(200, "Connection established")
        self.end_headers()
        self.close_connection = True
        with upstream:
            self._tunnel(upstream)

    def _tunnel(self, upstream: socket.socket) -> None:
        ends = {self.connection: upstream, upstream: self.connection}
        while not self.owner.closing.is_set():
            readable, _, _ = select.select(list(ends), [], [], 0.1)
            for end in readable:
                data = end.recv(65536)
                if not data:
                    return
                ends[end].sendall(data)

    def do_GET(self) -> None:  # noqa: N802 - named by http.server
        if not self._admitted():
            return
        target = urlsplit(self.path)
        address = self.owner.address(target.hostname or "", target.port or 80)
        path = target.path + (f"?{target.query}" if target.query else "")
        dropped = {"proxy-authorization", "proxy-connection", "connection"}
        headers = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items() if name.lower() not in dropped)
        try:
            with socket.create_connection(address, timeout=10) as upstream:
                upstream.sendall(f"{self.command} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n".encode())
                while data := upstream.recv(65536):
                    self.wfile.write(data)
        except OSError:
            self.answer(502)
        self.close_connection = True

    def do_HEAD(self) -> None:  # noqa: N802 - named by http.server
        self.do_GET()
