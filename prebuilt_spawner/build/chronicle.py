"""The story of one build: how long each phase took, what was printed, and when it was last heard of."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .events import BuildEvent, Phase
from .log import BuildLog

_MAX_DETAIL_CHARACTERS = 32 * 1024


class Chronicle:
    """Listens to a build's events, from any thread.

    Args:
        now: A clock in seconds that never goes back.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._log = BuildLog()
        self._seconds: dict[Phase, float] = {}
        self._phase: Phase | None = None
        self._since = self._heard = now()

    def add(self, event: BuildEvent) -> None:
        """Something happened."""
        with self._lock:
            self._heard = self._now()
            if event.phase is not self._phase:
                self._end_phase()
                self._phase = event.phase
            self._log.add(event)

    @property
    def silent_seconds(self) -> float:
        """How long nothing has happened."""
        with self._lock:
            return self._now() - self._heard

    def phase_seconds(self) -> dict[str, float]:
        """How long each phase took until now, in the order in which they began."""
        with self._lock:
            self._end_phase()
            return {phase.value: round(seconds, 3) for phase, seconds in self._seconds.items()}

    def log(self, detail: str = "") -> str:
        """What happened, bounded; at its end what the administrator is to know of a failure."""
        with self._lock:
            text = self._log.text()
        return f"{text}\n{detail[:_MAX_DETAIL_CHARACTERS]}" if detail else text

    def _end_phase(self) -> None:
        now = self._now()
        if self._phase is not None:
            self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._since = now
