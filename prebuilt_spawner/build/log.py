"""The log of one build: everything that was said, within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from itertools import chain

from .events import BuildEvent, Phase
from .output import LINE_LIMIT, OutputLines, plain

HEAD_CHARACTERS = 32 * 1024
TAIL_CHARACTERS = 96 * 1024
"""How much is kept of a log's beginning and of its end."""

_INDENT = "    "


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


class BuildLog:
    """What a build reported, as text: `2026-01-31T09:00:00Z downloading: …` for what happens, and indented below that
    what tools printed.

    Of a long log the beginning and the end are kept, with a line about what was cut between them, so that it takes a
    few MB whatever comes. Terminal sequences and control characters go; of progress bars and counts the last state is
    kept.
    Not thread-safe: all events come from one thread, or under a lock.

    Args:
        now: The clock: returns aware times.
        head, tail: How many characters of the beginning and of the end are kept.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = _utc_now,
        head: int = HEAD_CHARACTERS,
        tail: int = TAIL_CHARACTERS,
    ) -> None:
        self._now = now
        self._lines = _HeadAndTail(head, tail)
        self._output = OutputLines()
        self._phase: Phase | None = None
        # The newest count of a step that counts: the next one replaces it.
        self._count = ""

    def add(self, event: BuildEvent) -> None:
        """Take an event. What it printed continues the line that the one before has begun, until the phase changes."""
        if event.phase is not self._phase:
            self._end_count()
            self._add_all(self._output.end())
            self._phase = event.phase
        if event.message:
            if not event.total:
                self._end_count()
            line = _bounded(f"{self._time()} {event.phase.value}: {plain(event.message)}{_counted(event)}")
            if event.total:
                self._count = line
            else:
                self._lines.add(line)
        if event.output:
            self._end_count()
            self._add_all(self._output.feed(event.output))

    def text(self) -> str:
        """The log, each line ended; "" where nothing was reported."""
        return "".join(f"{line}\n" for line in self._all())

    def tail(self, lines: int) -> tuple[str, ...]:
        """The last lines."""
        return tuple(deque(self._all(), maxlen=lines))

    def _all(self) -> Iterator[str]:
        partial = self._output.partial
        yield from self._lines
        yield from (line for line in (partial and _INDENT + partial, self._count) if line)

    def _add_all(self, lines: Iterator[str]) -> None:
        for line in lines:
            self._lines.add(_INDENT + line if line else "")

    def _end_count(self) -> None:
        if self._count:
            self._lines.add(self._count)
            self._count = ""

    def _time(self) -> str:
        return self._now().astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class _HeadAndTail:
    """The first and the last lines of any number."""

    def __init__(self, head: int, tail: int) -> None:
        self._head: list[str] = []
        self._tail: deque[str] = deque()
        self._head_room = head
        self._tail_room = tail
        self._cut_lines = 0
        self._cut_characters = 0

    def add(self, line: str) -> None:
        size = len(line) + 1
        if not self._tail and size <= self._head_room:
            self._head.append(line)
            self._head_room -= size
            return
        self._tail.append(line)
        self._tail_room -= size
        while self._tail_room < 0:
            cut = len(self._tail.popleft()) + 1
            self._tail_room += cut
            self._cut_lines += 1
            self._cut_characters += cut

    def __iter__(self) -> Iterator[str]:
        cut = f"[… {self._cut_lines:,} lines with {self._cut_characters:,} characters cut …]"
        return chain(self._head, [cut] if self._cut_lines else [], self._tail)


def _counted(event: BuildEvent) -> str:
    return f" [{event.done}/{event.total}]" if event.total else ""


def _bounded(line: str) -> str:
    return line if len(line) <= LINE_LIMIT else f"{line[:LINE_LIMIT]} [{len(line) - LINE_LIMIT:,} more characters cut]"
