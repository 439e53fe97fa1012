"""The home: which volume holds it, and how much of it the administrator mounts already. Pure."""

from __future__ import annotations

import hashlib
import posixpath
import string
from collections.abc import Iterable, Mapping
from typing import Any

from escapism import escape

_SAFE = frozenset(string.ascii_lowercase + string.digits)


def home_volume(user: str, server: str) -> str:
    """Name of the volume that holds the home of a user's server; the default server's name is "".

    Escaped as DockerSpawner escapes names: what is not a lower-case letter or digit becomes `-` and the hexadecimal
    bytes of it. A doubled `-` is therefore never part of an escaped name, and separates user and server: the servers
    `b-c` of `a` and `c` of `a-b` have different homes. DockerSpawner's own template values are not used, because they
    hold two servers whose names differ only in case for one, and because a setting (`escape`) can make them ambiguous.
    """
    name = f"prebuilt-spawner-home-{_escaped(user)}"
    return f"{name}--{_escaped(server)}" if server else name


def _escaped(name: str) -> str:
    escaped: str = escape(name, _SAFE, escape_char="-")
    return escaped.lower()


def home_volumes(*, name: str, home: str, declared: Iterable[str], mounted: Iterable[str]) -> dict[str, str]:
    """Which volume of ours goes where: volume name by folder.

    Args:
        name: What `home_volume` says.
        home: The home in the container.
        declared: The image's own `VOLUME` folders. Those within the home get a named volume too: without one the
            engine makes a nameless volume that stays behind with the container.
        mounted: Where the administrator mounts something. Nothing of ours goes there or below.

    Returns:
        Empty where the administrator mounts the home or a folder above it, or where the home is the root, over which
        nothing can be mounted.
    """
    mounted = tuple(mounted)
    home = posixpath.normpath(home)
    if not home.strip("/.") or is_mounted(mounted, home):
        return {}
    inner = (folder for folder in parts_of(declared, home) if folder != home and not is_mounted(mounted, folder))
    return {home: name} | {folder: f"{name}---{_short_digest(folder)}" for folder in inner}


def is_mounted(mounted: Iterable[str], folder: str) -> bool:
    """Whether one of the mounts holds the folder."""
    return any(covers(target, folder) for target in mounted)


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def covers(target: str, place: str) -> bool:
    """Whether a mount at `target` holds the folder `place`: it is that folder or lies above it."""
    target, place = posixpath.normpath(target), posixpath.normpath(place)
    return target == place or place.startswith(target.rstrip("/") + "/")


def parts_of(targets: Iterable[str], home: str) -> tuple[str, ...]:
    """The mounts that lie within the home, sorted."""
    return tuple(sorted({posixpath.normpath(target) for target in targets if covers(home, target)}))


def mount_targets(host_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the arguments of docker-py's `create_host_config` mount something: absolute paths in the container.

    Reads `binds` (a dict, or a list of `source:target[:mode]`), `mounts` (`docker.types.Mount` or dicts with either
    spelling of the key) and `tmpfs` (a dict, or a list of `target[:options]`).
    """
    return (
        *_bind_targets(host_config.get("binds") or {}),
        *(str(mount.get("Target") or mount.get("target")) for mount in host_config.get("mounts") or ()),
        *tmpfs_by_target(host_config.get("tmpfs") or {}),
    )


def _bind_targets(binds: Any) -> tuple[str, ...]:
    if isinstance(binds, Mapping):
        return tuple(str(bind["bind"] if isinstance(bind, Mapping) else bind) for bind in binds.values())
    return tuple(bind.split(":")[1] for bind in binds if bind.count(":"))


def tmpfs_by_target(tmpfs: Any) -> dict[str, str]:
    """docker-py's `tmpfs` argument, whichever form it has, as options by target."""
    if isinstance(tmpfs, Mapping):
        return dict(tmpfs)
    return {target: options for target, _, options in (entry.partition(":") for entry in tmpfs)}
