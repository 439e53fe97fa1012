"""What happens while an environment is prepared, as values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class Phase(str, Enum):
    """The steps from request to image, in order."""

    WAITING = "waiting"
    RESOLVING = "resolving"
    BUILDING = "building"
    """A wheel is made of a source distribution."""
    DOWNLOADING = "downloading"
    PREPARING = "preparing"
    SAVING = "saving"
    CHECKING = "checking"
    READY = "ready"


@dataclass(frozen=True, kw_only=True)
class BuildEvent:
    """One step, progress within one, or what a tool printed in it.

    Attributes:
        phase: Which step.
        message: A line of plain text for users; "" where there is only output.
        done, total: How far within the step, in the step's own units (bytes, packages); total 0 is unknown.
        output: What a tool printed: any text, of any length, with whatever control characters.
        estimate_seconds: How long everything from here to the image usually takes; 0 is unknown. In a wait, everything
            that comes after it.
        summary: A line that says what this start does, shown above the steps; "" where the event says nothing of it.
        age_seconds: How long ago the step began, for whoever is told of it later.
    """

    phase: Phase
    message: str = ""
    done: int = 0
    total: int = 0
    output: str = ""
    estimate_seconds: float = 0
    summary: str = ""
    age_seconds: float = 0


def counts_on(event: BuildEvent, earlier: BuildEvent) -> bool:
    """Whether an event is a newer count of the step that the earlier one counts."""
    return event.phase is earlier.phase and event.total > 0 and earlier.total > 0


Report: TypeAlias = Callable[[BuildEvent], None]
"""Takes events, at once and without raising; may be called from any thread."""


def ignore(event: object) -> None:
    """A `Report`, or other news, that nobody reads."""
