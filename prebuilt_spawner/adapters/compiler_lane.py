"""The connection to a container that compiles: batches out, bytecode in. See `compiler_script` for what is said."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any

import docker

from ..image.archive import read_parts
from ..image.bytecode import Module
from .docker_client import Cancelled

_LOOK_SECONDS = 0.1
_RECEIVE_BYTES = 256 * 1024
_MAX_LINE_BYTES = 1 << 20
_GROWTH = 64
"""How much larger than its source bytecode may be, and what it may be in any case; a limit for what is believed."""
_MIN_BYTES = 1 << 20
_STDOUT, _STDERR = 1, 2


class LaneBroken(Exception):
    """The container does not answer as it should: it is of no use any more. Never reaches a user."""


class Lane:
    """A container, and the connection to it. For one thread at a time."""

    def __init__(self, client: docker.APIClient, container: str, stream: Any, *, image_id: str) -> None:
        self.image_id = image_id
        self.container = container
        self._client = client
        self._stream = stream
        # docker-py wraps the socket where it speaks plain HTTP.
        self._socket: socket.socket = getattr(stream, "_sock", stream)
        self._socket.settimeout(_LOOK_SECONDS)
        self._received = bytearray()
        self._frame = bytearray()
        self._errors = bytearray()

    @classmethod
    def attached(cls, client: docker.APIClient, container: str, *, image_id: str) -> Lane:
        """The connection to a container that is not started yet."""
        params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        return cls(client, container, client.attach_socket(container, params), image_id=image_id)

    def ask(self, batch: Sequence[Module], limit_seconds: float, stop: Event) -> list[bytes] | None:
        """The bytecode of each module, empty where it has none; None where the interpreter broke down.

        Raises:
            LaneBroken: The container ended, answers nonsense, or takes longer than it may.
            StorageFailure: A source cannot be read from the hub's disk.
            Cancelled: `stop` was set.
        """
        deadline = time.monotonic() + limit_seconds

        def check() -> None:
            if stop.is_set():
                raise Cancelled
            if time.monotonic() > deadline:
                raise LaneBroken(f"no answer within {limit_seconds:g} seconds")

        try:
            listing = [[module.path, module.source.size_bytes] for module in batch]
            self._send(json.dumps({"modules": listing}).encode() + b"\n", check)
            for chunk in read_parts([module.source.content for module in batch]):
                self._send(chunk, check)
            return self._answer(batch, check)
        except OSError as error:
            raise LaneBroken(f"{error!r}, {self._said()}") from error

    def close(self) -> None:
        """Release the connection; the container ends with it."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self._client.close()

    def _answer(self, batch: Sequence[Module], check: Callable[[], None]) -> list[bytes] | None:
        line = self._line(check)
        try:
            answer = json.loads(line)
            if "died" in answer:
                return None
            sizes = [int(size) for size in answer["sizes"]]
        except (ValueError, KeyError, TypeError) as error:
            raise LaneBroken(f"{line[:200]!r}, {self._said()}") from error
        most = [max(_MIN_BYTES, _GROWTH * module.source.size_bytes) for module in batch]
        if len(sizes) != len(batch) or any(size > limit for size, limit in zip(sizes, most, strict=True)):
            raise LaneBroken("an answer of absurd size")
        return [self._take(size, check) if size > 0 else b"" for size in sizes]

    def _send(self, content: bytes, check: Callable[[], None]) -> None:
        rest = memoryview(content)
        while rest:
            check()
            try:
                rest = rest[self._socket.send(rest) :]
            except TimeoutError:
                continue

    def _line(self, check: Callable[[], None]) -> bytes:
        while b"\n" not in self._received:
            if len(self._received) > _MAX_LINE_BYTES:
                raise LaneBroken("a line without an end")
            self._receive(check)
        line, _, rest = bytes(self._received).partition(b"\n")
        self._received = bytearray(rest)
        return line

    def _take(self, size: int, check: Callable[[], None]) -> bytes:
        while len(self._received) < size:
            self._receive(check)
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _receive(self, check: Callable[[], None]) -> None:
        """More of what the container prints, out of the frames that the engine puts it in (Docker's attach API)."""
        check()
        try:
            chunk = self._socket.recv(_RECEIVE_BYTES)
        except TimeoutError:
            return
        if not chunk:
            raise LaneBroken(f"it ended, {self._said()}")
        self._frame += chunk
        start = 0
        while len(self._frame) - start >= 8:
            size = int.from_bytes(self._frame[start + 4 : start + 8], "big")
            if len(self._frame) - start - 8 < size:
                break
            payload = self._frame[start + 8 : start + 8 + size]
            if self._frame[start] == _STDERR:
                self._errors = (self._errors + payload)[-4000:]
            elif self._frame[start] == _STDOUT:
                self._received += payload
            start += 8 + size
        del self._frame[:start]

    def _said(self) -> str:
        return f"it said: {self._errors.decode('utf-8', 'replace') or 'nothing'}"
