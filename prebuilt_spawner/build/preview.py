"""What a start would do, as a value and in words. Pure: `previews` finds it out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..environment.sizes import size_in_words

_SHOWN_NAMES = 3


class Readiness(str, Enum):
    """What there is of an environment."""

    READY = "ready"
    BUILDING = "building"
    UNBUILT = "unbuilt"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a start would do now, as far as is known without resolving, fetching or pulling anything.

    Attributes:
        readiness: READY: its image is there. BUILDING: somebody waits for its build on this hub. FAILED: the request
            itself was at fault when it was tried last. UNKNOWN: nobody could look.
        packages: `name==version` of what is added to the base; None while it is not resolved.
        from_source: Those of them that are built from source.
        size_bytes: Of their wheels, as the lock says; None while it is not known.
        seconds: How long it usually takes to build: this environment's own last build, else builds of as many packages
            on this base. None where that is not known, and where there is nothing to build.
        waiting: How many users wait for its build now.
        error: What building or resolving it failed with last, for users; "" unless FAILED.
    """

    readiness: Readiness
    packages: tuple[str, ...] | None = None
    from_source: tuple[str, ...] = ()
    size_bytes: int | None = None
    seconds: float | None = None
    waiting: int = 0
    error: str = ""


def in_words(preview: Preview) -> str:
    """What a start would do, in one sentence: "Builds first: about 20 s, adds 4 packages, 45 MB."; "" where nobody
    knows."""
    if preview.readiness is Readiness.UNKNOWN:
        return ""
    if preview.readiness is Readiness.READY:
        return _with("Starts at once", _built(preview))
    if preview.readiness is Readiness.FAILED:
        return f"Cannot work: {preview.error}" if preview.error else "Cannot work."
    if preview.readiness is Readiness.BUILDING:
        return _with("Is being built now", preview.waiting and f", {_people(preview.waiting)} waiting")
    return _with("Builds first", _work(preview))


def as_summary(preview: Preview) -> str:
    """What the start that has just begun does, in one sentence, for `BuildEvent.summary`; "" for one that fails."""
    if preview.readiness is Readiness.READY:
        return "Your environment is ready and starts at once."
    if preview.readiness is Readiness.FAILED:
        return ""
    if preview.readiness is Readiness.BUILDING:
        waits = "waits" if preview.waiting == 1 else "wait"
        people = "person" if preview.waiting == 1 else "people"
        return _with(
            "Your environment is being built", preview.waiting and f": {preview.waiting} {people} {waits} for it"
        )
    return _with("Your environment is built first", _work(preview))


def _with(sentence: str, rest: str | int) -> str:
    return f"{sentence}{rest or ''}."


def _people(number: int) -> str:
    return "1 person is" if number == 1 else f"{number} people are"


def _work(preview: Preview) -> str:
    """ ": about 20 s, adds 4 packages, 45 MB", without what is not known; "" where nothing is."""
    parts = []
    if preview.seconds is not None:
        parts.append(f"about {duration(preview.seconds)}")
    if preview.packages:
        parts.append(f"adds {len(preview.packages)} package{'s' if len(preview.packages) > 1 else ''}{_built(preview)}")
    if preview.size_bytes:
        parts.append(size_in_words(preview.size_bytes))
    return f": {', '.join(parts)}" if parts else ""


def _built(preview: Preview) -> str:
    """ " (docx from source)": which of them nobody but this hub has made a wheel of."""
    names = [package.partition("==")[0] for package in preview.from_source]
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return f" ({', '.join(names[:_SHOWN_NAMES])}{more} from source)" if names else ""


def duration(seconds: float) -> str:
    """As people say it: `20 s`, `3 min`."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 100 else f"{round(seconds / 60)} min"
