"""HTTP servers on loopback that run in threads of their own and write down what they are asked."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class LoggedRequest:
    """A request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: str = ""


class LoopbackServer:
    """An HTTP server in a thread of its own; a context manager."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> None:
        self.requests: list[LoggedRequest] = []
        self._arrival = threading.Condition()
        self.closing = threading.Event()
        bound = type("Handler", (handler,), {"owner": self, "protocol_version": "HTTP/1.1", "timeout": 30})
        self._server = _QuietServer((LOOPBACK, 0), bound)
        self._server.context = context
        self.port: int = self._server.server_address[1]
        # The poll interval bounds how long closing takes.
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def note(self, request: LoggedRequest) -> None:
        """Write a request down and wake who waits for it."""
        with self._arrival:
            self.requests.append(request)
            self._arrival.notify_all()

    def await_request(self, prefix: str, *, count: int = 1, timeout_seconds: float = 20) -> None:
        """Block until so many requests for paths with this beginning have arrived; use it in a thread."""

        def arrived() -> bool:
            return sum(request.path.startswith(prefix) for request in self.requests) >= count

        with self._arrival:
            if not self._arrival.wait_for(arrived, timeout_seconds):
                raise TimeoutError(f"no request for {prefix} within {timeout_seconds} s: {self.requests}")

    def close(self) -> None:
        """Stop serving and wait for the thread."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._server.shutdown()
        self._server.drop_connections()
        self._server.server_close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    context: ssl.SSLContext | None = None

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(address, handler)

    def process_request_thread(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        if self.context is not None:
            # In the connection's own thread: a slow or failing handshake must not hold up the others.
            try:
                request.settimeout(10)
                request = self.context.wrap_socket(request, server_side=True)
            except OSError:
                request.close()
                return
        self._open.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.discard(request)

    def drop_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


class LoopbackHandler(BaseHTTPRequestHandler):
    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are kept in `requests` instead of being printed."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
