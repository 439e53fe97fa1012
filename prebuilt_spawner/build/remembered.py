"""Requests that failed lately, so that the same one is answered at once."""

from __future__ import annotations

import copy
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from ..errors import PolicyRefusal, RequestError

_MOST = 1000


class RememberedFailures:
    """Failures by what failed. Only a request's own fault is remembered: surroundings may be well again in a moment.

    Args:
        ttl_seconds: How long; 0 remembers nothing.
        now: A clock in seconds that never goes back.
    """

    def __init__(self, ttl_seconds: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._ttl_seconds = ttl_seconds
        self._now = now
        self._failures: OrderedDict[Hashable, tuple[float, RequestError]] = OrderedDict()

    def check(self, key: Hashable) -> None:
        """Raise what this failed with, where that was a while ago at most."""
        until, error = self._failures.get(key, (0.0, None))
        if error is None:
            return
        if self._now() >= until:
            del self._failures[key]
            return
        # A copy: an exception that is raised again and again collects tracebacks.
        raise copy.copy(error)

    def remember(self, key: Hashable, error: Exception) -> None:
        """This failed now; anything but a request's own fault is ignored, and so is a policy, which is one user's."""
        if self._ttl_seconds > 0 and isinstance(error, RequestError) and not isinstance(error, PolicyRefusal):
            self._failures.pop(key, None)
            self._failures[key] = (self._now() + self._ttl_seconds, copy.copy(error))
            while len(self._failures) > _MOST:
                self._failures.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """Try it again next time."""
        self._failures.pop(key, None)
