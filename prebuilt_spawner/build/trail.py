"""What happened in a task so far, for whoever comes later: bounded, however long it takes and whatever is printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .events import BuildEvent, counts_on

MAX_OUTPUT_CHARACTERS = 64 * 1024


class EventTrail:
    """The events of a task, in order. A later event of a step that counts replaces the one before it; of what tools
    printed only the end is kept."""

    def __init__(self) -> None:
        self._events: list[BuildEvent] = []
        self._output_characters = 0

    def add(self, event: BuildEvent) -> None:
        """The next event."""
        if event.output:
            event = replace(event, output=event.output[-MAX_OUTPUT_CHARACTERS:])
            self._output_characters += len(event.output)
        last = self._events[-1] if self._events else None
        if last is not None and _replaces(event, last):
            self._events[-1] = event
        else:
            self._events.append(event)
        self._forget_old_output()

    def __iter__(self) -> Iterator[BuildEvent]:
        return iter(tuple(self._events))

    def _forget_old_output(self) -> None:
        while self._output_characters > 2 * MAX_OUTPUT_CHARACTERS:
            index = next(number for number, event in enumerate(self._events) if event.output)
            event = self._events[index]
            self._output_characters -= len(event.output)
            if event.message or event.summary:
                self._events[index] = replace(event, output="")
            else:
                del self._events[index]


def _replaces(event: BuildEvent, earlier: BuildEvent) -> bool:
    tells_more = any(one.output or one.summary for one in (event, earlier))
    return counts_on(event, earlier) and not tells_more
