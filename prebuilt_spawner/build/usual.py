"""How long builds usually take, from those that were done lately. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import islice

USUAL_BUILDS = 20
"""How many of the last builds say what is usual."""


class UsualTimes:
    """What the last builds on one base say of the next one.

    Args:
        done: Number of requirements and seconds of work of the builds that were done, newest first.
    """

    def __init__(self, done: Sequence[tuple[int, float]] = ()) -> None:
        self._done = tuple(done)
        self._seconds: dict[int, float | None] = {}

    def seconds(self, packages: int) -> float | None:
        """The median of the last builds with a number of requirements within a factor of two; None without any."""
        if packages not in self._seconds:
            low, high = (packages + 1) // 2, packages * 2
            like = list(islice((seconds for number, seconds in self._done if low <= number <= high), USUAL_BUILDS))
            self._seconds[packages] = statistics.median(like) if like else None
        return self._seconds[packages]
