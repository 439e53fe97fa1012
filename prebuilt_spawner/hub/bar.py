"""How far a start is, as the length of a bar that only grows."""

from __future__ import annotations

from ..build.events import BuildEvent, Phase

STARTING_PERCENT = 90
"""Where the container's start begins on JupyterHub's scale of 0 to 100; what is above is JupyterHub's."""

# Where each phase begins and ends, for builds of which nothing like them was seen before.
_SHARES = {
    Phase.WAITING: (1, 5),
    Phase.RESOLVING: (5, 15),
    Phase.BUILDING: (10, 15),
    Phase.DOWNLOADING: (15, 45),
    Phase.PREPARING: (45, 65),
    Phase.SAVING: (65, 80),
    Phase.CHECKING: (80, 88),
    Phase.READY: (STARTING_PERCENT, STARTING_PERCENT),
}
_BUILT_PERCENT = 88


class Bar:
    """The length of a bar: by phases and counts, or by time where it is known how long it usually takes.

    Waiting for a place takes no part of an estimated time. Times are seconds of any clock that only goes forward.
    """

    def __init__(self) -> None:
        self._percent = 1.0
        self._estimate_seconds = 0.0
        # When the estimated time began, and the bar's length then.
        self._began: float | None = None
        self._began_percent = 0.0

    def take(self, event: BuildEvent, now: float) -> None:
        """Take account of an event of this time, which may be before that of others: of what was going on already when
        this start joined it."""
        self._advance(now)
        if event.estimate_seconds > 0:
            self._estimate_seconds = event.estimate_seconds
            self._began = None
        if event.phase is Phase.WAITING or event.phase is Phase.READY:
            if self._began is not None:
                self._estimate_seconds = min(self._estimate_seconds, max(0.0, self.remaining_seconds(now)))
            self._began = None
        elif self._estimate_seconds and self._began is None:
            self._began, self._began_percent = now, self._percent
        if self._began is None:
            begin, end = _SHARES[event.phase]
            part = min(max(event.done / event.total, 0.0), 1.0) if event.total > 0 else 0.0
            self._percent = max(self._percent, begin + (end - begin) * part)

    def percent(self, now: float) -> int:
        """The length; never less than before."""
        self._advance(now)
        return int(self._percent)

    def remaining_seconds(self, now: float) -> float:
        """How long it will take yet; 0 is unknown or waits for a place, less than 0 longer than usual."""
        if self._began is None:
            return 0
        return self._began + self._estimate_seconds - now or -1.0

    @property
    def moves_by_itself(self) -> bool:
        """Whether it gets longer as time passes."""
        return self._began is not None

    def _advance(self, now: float) -> None:
        if self._began is not None:
            passed = max(0.0, now - self._began) / self._estimate_seconds
            # Nine tenths in the usual time; what takes longer comes ever closer to the end and does not reach it.
            part = 0.9 * passed if passed <= 1 else 1 - 0.1 / passed
            grown = self._began_percent + (_BUILT_PERCENT - self._began_percent) * part
            self._percent = max(self._percent, grown)
