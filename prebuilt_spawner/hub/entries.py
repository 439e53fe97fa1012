"""What the form's fields hold: what was just posted, else what failed last, a link's, or the stored options."""

from __future__ import annotations

import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from ..environment.pasted import MAX_REQUEST_CHARACTERS
from ..errors import PrebuiltError, RequestError

REASON_SECONDS = 600
"""How long the form says why the last start failed; the entries stay longer. Later it may not be true any more."""

_MOST_SERVERS = 20


@dataclass(frozen=True, kw_only=True)
class Entries:
    """What the form's fields hold.

    Attributes:
        packages: As it was typed, or one on each line.
    """

    profile: str = ""
    packages: str = ""
    image: str = ""
    refresh: bool = False


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why a start failed.

    Attributes:
        message: For the user.
        about: The option that it is about; "" for none of them.
        entry: The entry of the package list that it is about, or a package's name; "" where it is about no single one.
    """

    message: str
    about: str = ""
    entry: str = ""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A start that failed.

    Attributes:
        entries: What had been asked for.
        reason: None where that is long ago.
    """

    entries: Entries
    reason: Reason | None


@dataclass(kw_only=True)
class _Posted:
    """What a form has just sent; the start that follows, in a task of its own, adds how it failed."""

    entries: Entries
    reason: Reason | None = None


# JupyterHub renders the form again when a start fails within a second, without the request at hand and for
# the default server's spawner, whichever server was asked for. Both happen in the request's own context.
_posted: ContextVar[_Posted | None] = ContextVar("posted", default=None)


def note_posted(options: Mapping[str, Any]) -> None:
    """A form has sent this, in the request that is being answered."""
    _posted.set(_Posted(entries=entries_from_options(options)))


def just_posted() -> Attempt | None:
    """What was posted in the request that is being answered, and how it failed."""
    posted = _posted.get()
    return None if posted is None else Attempt(entries=posted.entries, reason=posted.reason)


class FailedAttempts:
    """The last failed start of each server, by user, for as long as the hub runs.

    JupyterHub stores the options of a failed start and makes a new spawner after it, so that nobody else knows.

    Args:
        clock: Seconds, of a clock that only goes forward.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_user: weakref.WeakKeyDictionary[Any, OrderedDict[str, tuple[float, Attempt]]] = (
            weakref.WeakKeyDictionary()
        )

    def note(self, user: Any, server: str, options: Mapping[str, Any], error: PrebuiltError) -> None:
        """A start with these options has failed; also said to whoever answers the form that asked for it."""
        reason = _reason(error)
        posted = _posted.get()
        if posted is not None:
            posted.reason = reason
        attempts = self._by_user.setdefault(user, OrderedDict())
        attempts.pop(server, None)
        attempts[server] = (self._clock(), Attempt(entries=entries_from_options(options), reason=reason))
        while len(attempts) > _MOST_SERVERS:
            attempts.popitem(last=False)

    def forget(self, user: Any, server: str) -> None:
        """The server has started."""
        self._by_user.get(user, OrderedDict()).pop(server, None)

    def last(self, user: Any, server: str) -> Attempt | None:
        """How the server's last start failed; None where it did not, or where nobody knows any more."""
        found = self._by_user.get(user, OrderedDict()).get(server)
        if found is None:
            return None
        noted, attempt = found
        if self._clock() - noted < REASON_SECONDS:
            return attempt
        # Asking for newer versions is an act: what was asked long ago is not asked again by the way.
        return Attempt(entries=replace(attempt.entries, refresh=False), reason=None)


def _reason(error: PrebuiltError) -> Reason:
    about = error.about or ("packages" if isinstance(error, RequestError) and error.package else "")
    return Reason(message=error.message, about=about, entry=error.entry or error.package)


def entries_from_options(options: Mapping[str, Any]) -> Entries:
    """How options, which may have any form, are shown in the fields."""
    packages = options.get("packages")
    if isinstance(packages, list | tuple):
        packages = "\n".join(entry for entry in packages if isinstance(entry, str))
    return Entries(
        profile=_text(options.get("profile")),
        packages=_text(packages),
        image=_text(options.get("image")),
        refresh=options.get("refresh") is True,
    )


def entries_from_query(query: Mapping[str, Sequence[bytes]]) -> Entries | None:
    """What a link puts into the fields, with or without JupyterHub's `opt-`; None where it names none of them.

    Asking for newer versions is an act: a link cannot do it.
    """
    values = {
        name.removeprefix("opt-"): "\n".join(value.decode("utf-8", "replace") for value in values)
        for name, values in query.items()
    }
    if not values.keys() & {"profile", "packages", "image"}:
        return None
    return entries_from_options({name: values.get(name, "") for name in ("profile", "packages", "image")})


def _text(value: Any) -> str:
    # One character more than is read, so that what is too long still is when it is sent again.
    if not isinstance(value, str):
        return ""
    # JSON can hold halves of characters, which no page can.
    return value[: MAX_REQUEST_CHARACTERS + 1].encode("utf-8", "replace").decode()
