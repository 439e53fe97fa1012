"""Containers that start as root: docker-stacks' images run their hooks as root before they drop it, and a package's
`.pth` file would run there, too."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import PolicyRefusal
from .base import BaseProbe
from .quoting import quoted

_NEEDS_ROOT = (
    *("NB_USER", "NB_UID", "NB_GROUP", "NB_GID", "GRANT_SUDO"),
    *("CHOWN_HOME", "CHOWN_HOME_OPTS", "CHOWN_EXTRA", "CHOWN_EXTRA_OPTS"),
)
"""Variables that start.sh of docker-stacks heeds only as root."""


def starts_as_root(user: object, probe: BaseProbe) -> bool:
    """Whether a container on this base starts as root, or might.

    Args:
        user: As the engine takes it: a name or a number, with or without `:group`; None or "" for the base's own. A
            name that is not that of the base's own user might be root's.
        probe: The base, whose own user it ran as.
    """
    name = "" if user is None else str(user).partition(":")[0]
    if name in ("", probe.user):
        return probe.uid == 0
    try:
        return int(name) == 0
    except ValueError:
        return True


def refuse_root(user: object, probe: BaseProbe, *, variables: Iterable[str] = ()) -> None:
    """Refuse to run a user's packages in a container that starts as root, as `starts_as_root` says.

    Args:
        variables: Names of the container's environment variables, for the log.

    Raises:
        PolicyRefusal: The detail says what the administrator can do.
    """
    if not starts_as_root(user, probe):
        return
    heeded = sorted(set(variables) & set(_NEEDS_ROOT))
    purpose = f" (for {', '.join(heeded)})" if heeded else ""
    if user is None or str(user).partition(":")[0] == "":
        why = "the base image's own user is root: give it another USER, or set a user's number in extra_create_kwargs"
    else:
        why = f"its user is {quoted(str(user))}: leave `user` out of extra_create_kwargs, or give a number other than 0"
    raise PolicyRefusal(
        "Packages of your own cannot be used here, because the container of your server starts as root, and they would "
        "run as root. Start without packages of your own, or ask the administrator.",
        detail=f"The container starts as root{purpose}, because {why}. Profiles start as they are.",
        about="packages",
    )
