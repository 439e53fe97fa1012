"""How much each user has had resolved and built lately."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TypeAlias

from ..errors import BuildRateExceeded

Charge: TypeAlias = Callable[[], None]
"""Called as something is resolved or built for a user; raises `BuildRateExceeded` where that may not be."""

_HOUR_SECONDS = 3600
_MOST_USERS = 10_000


def free() -> None:
    """A charge for what nobody pays for."""


class BuildRates:
    """Counts starts by the user who caused work with them, for an hour; the hub's end forgets them.

    Args:
        now: A clock in seconds that never goes back.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        # The user who was charged longest ago comes first, and nobody is kept for whom the hour is over.
        self._charged: OrderedDict[str, deque[float]] = OrderedDict()

    def for_start(self, user: str, most_per_hour: int) -> Charge:
        """What one start is charged with, once, however much is resolved and built for it; 0 is no limit."""
        charged = not most_per_hour

        def charge() -> None:
            nonlocal charged
            if not charged:
                self._charge(user, most_per_hour)
                charged = True

        return charge

    def _charge(self, user: str, most_per_hour: int) -> None:
        now = self._now()
        self._forget(now - _HOUR_SECONDS)
        times = self._charged.setdefault(user, deque())
        while times and times[0] <= now - _HOUR_SECONDS:
            times.popleft()
        if len(times) >= most_per_hour:
            minutes = math.ceil((times[-most_per_hour] + _HOUR_SECONDS - now) / 60)
            raise BuildRateExceeded(
                f"You have had {len(times)} environments prepared within an hour, and no more are allowed. Try again "
                f"in {minutes} minute{'' if minutes == 1 else 's'}, or choose an environment that is ready."
            )
        times.append(now)
        self._charged.move_to_end(user)

    def _forget(self, before: float) -> None:
        while self._charged:
            user, times = next(iter(self._charged.items()))
            if times and times[-1] > before and len(self._charged) <= _MOST_USERS:
                return
            del self._charged[user]
