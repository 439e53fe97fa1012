"""The connection to a container's input and output (Docker's attach API), for one thread at a time."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import docker

STDOUT, STDERR = 1, 2
_LOOK_SECONDS = 0.1
_RECEIVE_BYTES = 256 * 1024
_HEAD_BYTES = 8


class Ended(Exception):
    """The container has closed its output. Never reaches a user."""


class Attached:
    """Input and output of one container.

    Every wait calls the `check` that it is given ten times a second, which raises where there is no use in waiting on.

    Args:
        client: It belongs to this connection, and is closed with it.
        container: ID of a container that is not started yet.
    """

    def __init__(self, client: docker.APIClient, container: str) -> None:
        params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        self._client = client
        self._stream: Any = client.attach_socket(container, params)
        # docker-py wraps the socket where it speaks plain HTTP.
        self._socket: socket.socket = getattr(self._stream, "_sock", self._stream)
        self._socket.settimeout(_LOOK_SECONDS)
        self._frames = bytearray()

    def send(self, content: bytes | memoryview, check: Callable[[], None]) -> None:
        """Write to the container's input.

        Raises:
            OSError: The connection is broken.
        """
        rest = memoryview(content)
        while rest:
            check()
            try:
                rest = rest[self._socket.send(rest) :]
            except TimeoutError:
                continue

    def receive(self, check: Callable[[], None]) -> list[tuple[int, bytes]]:
        """More of what the container prints, out of the frames that the engine puts it in: `STDOUT` or `STDERR`, and
        what it was. Perhaps nothing yet.

        Raises:
            Ended: There is no more.
            OSError: The connection is broken.
        """
        check()
        try:
            chunk = self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError:
            return []
        if not chunk:
            raise Ended
        self._frames += chunk
        found, start = [], 0
        while len(self._frames) - start >= _HEAD_BYTES:
            body = start + _HEAD_BYTES
            end = body + int.from_bytes(self._frames[body - 4 : body], "big")
            if len(self._frames) < end:
                break
            found.append((self._frames[start], bytes(self._frames[body:end])))
            start = end
        del self._frames[:start]
        return found

    def close(self) -> None:
        """Release the connection, also where the container goes on writing: else the engine waits for a reader with all
        that is asked of it. Closing alone leaves the socket open as long as the engine's answer lives."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._stream.close()
        self._client.close()
