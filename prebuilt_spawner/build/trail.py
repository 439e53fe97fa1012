"""What happened in a task so far, for whoever comes later: bounded, however long it takes and whatever is printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from .events import BuildEvent, counts_on

MAX_OUTPUT_CHARACTERS = 64 * 1024


class EventTrail:
    """The events of a task, in order, with their age. A later event of a step that counts replaces the one before it;
    of what tools printed only the end is kept.

    Args:
        now: A clock in seconds that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # When each step began, and what it is.
        self._events: list[tuple[float, BuildEvent]] = []
        self._output_characters = 0

    def add(self, event: BuildEvent) -> None:
        """The next event."""
        if event.output:
            event = replace(event, output=event.output[-MAX_OUTPUT_CHARACTERS:])
            self._output_characters += len(event.output)
        began, last = self._events[-1] if self._events else (0.0, None)
        if last is not None and _replaces(event, last):
            self._events[-1] = began, event
        else:
            self._events.append((self._now(), event))
        self._forget_old_output()

    def __iter__(self) -> Iterator[BuildEvent]:
        now = self._now()
        return iter([replace(event, age_seconds=now - began) for began, event in self._events])

    def _forget_old_output(self) -> None:
        while self._output_characters > 2 * MAX_OUTPUT_CHARACTERS:
            index = next(number for number, (_, event) in enumerate(self._events) if event.output)
            began, event = self._events[index]
            self._output_characters -= len(event.output)
            if event.message or event.summary:
                self._events[index] = began, replace(event, output="")
            else:
                del self._events[index]


def _replaces(event: BuildEvent, earlier: BuildEvent) -> bool:
    tells_more = any(one.output or one.summary for one in (event, earlier))
    return counts_on(event, earlier) and not tells_more
