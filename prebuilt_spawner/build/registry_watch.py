"""What is known of a registry from how it answered: said in the log once when it changes, and counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from ..errors import PrebuiltError, RegistryRefusal, RegistryUnavailable

_log = logging.getLogger(__name__)

REFUSED, UNREACHABLE = "refused", "unreachable"


class RegistryWatch:
    """One thing that is done with a registry: looking into it, or writing to it. One may work without the other.

    Attributes:
        counts: How often it ended how: "refused", "unreachable", and what `answered` is told.

    Args:
        doing: What for, after "for", as the log says it.
        meanwhile: What is done instead, as a sentence.
        pause_seconds: For how long a registry that could not be reached is not tried again.
        now: A clock in seconds that never goes back.
    """

    def __init__(self, doing: str, meanwhile: str, *, pause_seconds: float, now: Callable[[], float]) -> None:
        self.counts: Counter[str] = Counter()
        self._doing = doing
        self._meanwhile = meanwhile
        self._pause_seconds = pause_seconds
        self._now = now
        self._state = ""
        self._until = 0.0

    @property
    def pausing(self) -> bool:
        """Whether it could not be reached just now, so that nobody needs to wait to learn it again."""
        return self._state == UNREACHABLE and self._now() < self._until

    def answered(self, outcome: str) -> None:
        """It did what it was asked."""
        self.counts[outcome] += 1
        if self._state:
            _log.info("The registry can be used for %s again", self._doing)
        self._state = ""

    def failed(self, error: PrebuiltError) -> None:
        """It refused, or could not be reached. Other errors say nothing of it."""
        if isinstance(error, RegistryRefusal):
            state, what = REFUSED, "does not let this hub in"
        elif isinstance(error, RegistryUnavailable):
            state, what = UNREACHABLE, "cannot be reached"
        else:
            return
        self.counts[state] += 1
        if state != self._state:
            _log.warning("The registry %s for %s: %s (%s)", what, self._doing, self._meanwhile, error.detail)
        self._state = state
        self._until = self._now() + self._pause_seconds
