"""What users see while their environment is prepared: one buffer for each start, many readers."""

from __future__ import annotations

import asyncio
import html
import re
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TypedDict

from ..build.events import BuildEvent, Phase

BATCH_INTERVAL_SECONDS = 0.25
"""Readers get what happened at most this often: a browser draws every event."""

# Where each phase begins and ends on JupyterHub's scale of 0 to 100; the rest is the container's start.
_PERCENT = {
    Phase.WAITING: (1, 5),
    Phase.RESOLVING: (5, 15),
    Phase.DOWNLOADING: (15, 45),
    Phase.PREPARING: (45, 65),
    Phase.SAVING: (65, 80),
    Phase.CHECKING: (80, 88),
    Phase.READY: (90, 90),
}
STARTING_PERCENT = 90

# ECMA-48 control sequences (colours, cursor movements), then every other control character.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x1f\x7f-\x9f]")


class ProgressEvent(TypedDict):
    """An event as JupyterHub sends it. `html_message` goes into the page as it is, so it is escaped here."""

    progress: int
    message: str
    html_message: str


def progress_event(event: BuildEvent) -> ProgressEvent:
    """A build event as JupyterHub shows it."""
    begin, end = _PERCENT[event.phase]
    part = min(max(event.done / event.total, 0.0), 1.0) if event.total > 0 else 0.0
    message = _CONTROL.sub(" ", event.message).strip()
    return {"progress": begin + round((end - begin) * part), "message": message, "html_message": html.escape(message)}


class ProgressBuffer:
    """The events of one start. Every reader gets all of them, from the first, however late it comes.

    A later event of a step that counts (`total` is not 0) replaces the one before it, so that the buffer stays small.
    """

    def __init__(self) -> None:
        self._events: list[tuple[int, BuildEvent]] = []
        self._count = 0
        self._lock = threading.Lock()
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False
        self.complete = False

    def attach(self) -> None:
        """Say which event loop the readers are on: the running one. Before the first event."""
        self._loop = asyncio.get_running_loop()

    def report(self, event: BuildEvent) -> None:
        """Take an event, from any thread."""
        with self._lock:
            if self._events and _replaces(event, self._events[-1][1]):
                self._events.pop()
            self._count += 1
            self._events.append((self._count, event))
        self._wake()

    def close(self, *, complete: bool) -> None:
        """No more events come; the readers end when they have read what there is.

        Args:
            complete: Whether what the events tell of has succeeded.
        """
        self.closed, self.complete = True, complete
        self._wake()

    async def read(self) -> AsyncIterator[BuildEvent]:
        """All events, then each as it comes, until the buffer is closed."""
        seen = 0
        while True:
            changed = self._changed
            closed = self.closed
            with self._lock:
                news = [entry for entry in self._events if entry[0] > seen]
            for number, event in news:
                seen = number
                yield event
            if closed:
                return
            if news:
                await asyncio.sleep(BATCH_INTERVAL_SECONDS)
            else:
                await changed.wait()

    def _wake(self) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody reads any more
                self._loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _replaces(event: BuildEvent, earlier: BuildEvent) -> bool:
    return event.phase is earlier.phase and event.total > 0 and earlier.total > 0
