"""A socket that leads to the engine, and can be closed or held up in the middle of a request."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import threading
from pathlib import Path


def socket_of_the_engine() -> str:
    """The path of the engine's own socket."""
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")


class EngineSocket:
    """A socket that leads to the engine while it is open: closed, the engine is as good as stopped."""

    def __init__(self, path: Path, target: str) -> None:
        self.path = path
        self._target = target
        self._listener: socket.socket | None = None
        self._links: list[socket.socket] = []
        self._held: tuple[bytes, bool] | None = None
        self.reached = threading.Event()
        """Set when a request that is to be held has come."""

    def open(self) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        if self._listener is not None:
            # `shutdown` wakes the thread that waits in `accept`.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.path.unlink(missing_ok=True)
        for link in self._links:
            _cut(link)
        self._links.clear()

    def hold(self, request: bytes, *, after: bool = False) -> None:
        r"""From now on, stop at a request whose first line begins so.

        Args:
            request: A regular expression, as `POST \S*/images/load`.
            after: Let the engine have it, and keep its answer.
        """
        self.reached.clear()
        self._held = request, after

    def let_go(self) -> None:
        """Hold nothing that comes from now on; what is held stays so."""
        self._held = None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                inner, _ = listener.accept()
            except OSError:
                return
            outer = socket.socket(socket.AF_UNIX)
            outer.connect(self._target)
            self._links += [inner, outer]
            threading.Thread(target=self._carry, args=(inner, outer), daemon=True).start()

    def _carry(self, inner: socket.socket, outer: socket.socket) -> None:
        peers = {inner: outer, outer: inner}
        with inner, outer:
            while peers:
                for source in select.select(list(peers), [], [])[0]:
                    try:
                        data = source.recv(1 << 16)
                        held = self._held if source is inner else None
                        if held is not None and re.match(held[0], data):
                            if held[1]:
                                peers[source].sendall(data)
                                outer.recv(1)  # the engine has done it
                            self.reached.set()
                            _until_closed(inner)
                            return
                        peers[source].sendall(data)
                    except OSError:
                        return
                    if not data:
                        try:
                            peers.pop(source).shutdown(socket.SHUT_WR)
                        except OSError:
                            return


def _until_closed(link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while link.recv(1 << 16):
            pass


def _cut(link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)
