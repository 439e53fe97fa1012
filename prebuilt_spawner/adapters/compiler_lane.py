"""The connection to a container that compiles: batches out, bytecode in. See `compiler_script` for what is said."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from threading import Event

from ..image.archive import read_parts
from ..image.bytecode import Module
from .attached import STDERR, STDOUT, Attached, Ended
from .docker_client import Cancelled

_MAX_LINE_BYTES = 1 << 20
_GROWTH = 64
"""How much larger than its source bytecode may be, and what it may be in any case; a limit for what is believed."""
_MIN_BYTES = 1 << 20


class LaneBroken(Exception):
    """The container does not answer as it should: it is of no use any more. Never reaches a user."""


class Lane:
    """A container, and the connection to it. For one thread at a time."""

    def __init__(self, attached: Attached, container: str, *, image_id: str) -> None:
        self.image_id = image_id
        self.container = container
        self._attached = attached
        self._received = bytearray()
        self._errors = bytearray()

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
            self._attached.send(json.dumps({"modules": listing}).encode() + b"\n", check)
            for chunk in read_parts([module.source.content for module in batch]):
                self._attached.send(chunk, check)
            return self._answer(batch, check)
        except OSError as error:
            raise LaneBroken(f"{error!r}, {self._said()}") from error

    def close(self) -> None:
        """Release the connection; the container ends with it."""
        self._attached.close()

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
        try:
            found = self._attached.receive(check)
        except Ended:
            raise LaneBroken(f"it ended, {self._said()}") from None
        for stream, payload in found:
            if stream == STDERR:
                self._errors = (self._errors + payload)[-4000:]
            elif stream == STDOUT:
                self._received += payload

    def _said(self) -> str:
        return f"it said: {self._errors.decode('utf-8', 'replace') or 'nothing'}"
