"""What users see while their environment is prepared: one buffer for each start, many readers."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import lru_cache
from typing import TypedDict

from ..build.events import BuildEvent, Phase, counts_on
from ..build.output import OutputLines, plain
from .bar import STARTING_PERCENT, Bar
from .rendering import html_of

__all__ = ["BATCH_INTERVAL_SECONDS", "STARTING_PERCENT", "ProgressBuffer", "ProgressEvent"]

BATCH_INTERVAL_SECONDS = 0.25
"""Readers get what happened at most this often: a browser draws every event."""

TAIL_LINES = 8
"""How many of the last lines that tools printed are shown, and how much of each."""
_LINE_CHARACTERS = 300
_MESSAGE_CHARACTERS = 1_000

_MAX_STEPS = 200
_TICK_SECONDS = 1.0
_OUTPUT_CHARACTERS = 65_536  # more than the tail can show is not looked at

_BEFORE_THE_FIRST = BuildEvent(phase=Phase.WAITING, message="Preparing the environment")


class ProgressEvent(TypedDict):
    """An event as JupyterHub sends it. `html_message` goes into the page as it is, so it is escaped here."""

    progress: int
    message: str
    html_message: str


class ProgressBuffer:
    """The events of one start. Every reader gets all of them, from the first, however late it comes.

    It stays small: a later event of a step that counts (`total` is not 0) replaces the one before it, and of what tools
    print the last lines are kept.

    Args:
        clock: Seconds, of a clock that only goes forward.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # The number of each step, when it came or changed, and what it is.
        self._steps: list[tuple[int, int, BuildEvent]] = []
        self._changes = 0
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._output = OutputLines(_LINE_CHARACTERS)
        self._bar = Bar()
        self._summary = ""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waking = False
        self._changed: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None
        self.closed = False
        self.complete = False

    def attach(self) -> None:
        """Say which event loop the readers are on: the running one. Before the first event."""
        self._loop = asyncio.get_running_loop()

    def report(self, event: BuildEvent) -> None:
        """Take an event, from any thread."""
        with self._lock:
            self._bar.take(event, self._clock() - event.age_seconds)
            if event.summary:
                self._summary = plain(event.summary[:_MESSAGE_CHARACTERS])
            if event.output:
                self._print(event.output)
            if event.message:
                self._say(event)
        self._wake()

    def close(self, *, complete: bool) -> None:
        """No more events come; the readers end when they have read what there is.

        Args:
            complete: Whether what the events tell of has succeeded.
        """
        self.closed, self.complete = True, complete
        self._wake()

    async def read(self) -> AsyncIterator[ProgressEvent]:
        """All steps, the last of them with the last lines of output, then what changes, until the buffer is closed.

        The bar is the same for all readers. The first event of each carries the page's script.
        """
        seen = 0
        shown: ProgressEvent | None = None
        while True:
            changed, ended = self._futures()
            closed = self.closed
            news, seen, ticking = self._news(seen)
            for event in news:
                if event != shown:
                    yield event if shown else _with_script(event)
                    shown = event
            if closed:
                return
            await asyncio.wait([ended], timeout=BATCH_INTERVAL_SECONDS)
            await asyncio.wait([changed], timeout=_TICK_SECONDS if ticking else None)

    def _news(self, seen: int) -> tuple[list[ProgressEvent], int, bool]:
        with self._lock:
            now = self._clock()
            percent, remaining = self._bar.percent(now), self._bar.remaining_seconds(now)
            news = [(step, event) for step, change, event in self._steps if change > seen]
            if not news:
                news = [(step, event) for step, _, event in self._steps[-1:]] or [(0, _BEFORE_THE_FIRST)]
            lines = (*self._tail, self._output.partial) if self._output.partial else tuple(self._tail)
            seen, ticking, summary = self._changes, self._bar.moves_by_itself, self._summary
        shown: list[ProgressEvent] = []
        for number, (step, event) in enumerate(news, 1):
            last = number == len(news)
            message = _sentence(event, remaining if last and not self.closed else 0)
            html_message = _html(step, message, lines[-TAIL_LINES:] if last else (), summary if last else "")
            shown.append({"progress": percent, "message": message, "html_message": html_message})
        return shown, seen, ticking

    def _say(self, event: BuildEvent) -> None:
        step = self._steps[-1][0] + 1 if self._steps else 1
        if self._steps and counts_on(event, self._steps[-1][2]):
            step = self._steps.pop()[0]
        elif len(self._steps) >= _MAX_STEPS:
            del self._steps[_MAX_STEPS // 2]
        self._changes += 1
        self._steps.append((step, self._changes, event))

    def _print(self, output: str) -> None:
        if len(output) > _OUTPUT_CHARACTERS:
            output = output[-_OUTPUT_CHARACTERS:]
            self._output = OutputLines(_LINE_CHARACTERS)
        self._tail.extend(line for line in self._output.feed(output) if line.strip())

    def _futures(self) -> tuple[asyncio.Future[None], asyncio.Future[None]]:
        loop = asyncio.get_running_loop()
        if self._changed is None:
            self._changed = loop.create_future()
        if self._ended is None:
            self._ended = loop.create_future()
        return self._changed, self._ended

    def _wake(self) -> None:
        with self._lock:
            if self._loop is None or self._waking:
                return
            self._waking = True
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        with self._lock:
            self._waking = False
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None
        if self.closed and self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


def _sentence(event: BuildEvent, remaining_seconds: float) -> str:
    message = plain(event.message[:_MESSAGE_CHARACTERS])
    if event.total > 0 and event.phase in (Phase.DOWNLOADING, Phase.SAVING):
        digits = 0 if event.total >= 10e6 else 1
        message += f": {event.done / 1e6:.{digits}f} of {event.total / 1e6:.{digits}f} MB"
    elif event.total > 0 and event.phase is Phase.PREPARING:
        message += f": {event.done} of {event.total}"
    return message + _spoken(remaining_seconds)


def _spoken(remaining_seconds: float) -> str:
    if not remaining_seconds:
        return ""
    if remaining_seconds < 0:
        return " (takes longer than usual)"
    if remaining_seconds > 90:
        return f" (about {round(remaining_seconds / 60)} min left)"
    return f" (about {5 * math.ceil(remaining_seconds / 5)} s left)"


@lru_cache(maxsize=256)
def _html(step: int, message: str, lines: tuple[str, ...], summary: str) -> str:
    """One rendering for all who watch the same."""
    return html_of("progress.html", step=step, message=message, lines=lines, summary=summary)


def _with_script(event: ProgressEvent) -> ProgressEvent:
    script = html_of("progress_script.html")
    return {**event, "html_message": f"{event['html_message']}\n{script}"}
