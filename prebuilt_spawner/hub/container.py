"""What a container of ours is created with besides what DockerSpawner and the administrator say. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from . import home

CONTAINER_LABEL = "prebuilt_spawner.container"
"""Whose container it is, `<user>/<server>`. A container without it is never touched. No image has it."""
PROFILE_LABEL = "prebuilt_spawner.profile"
"""Slug of the profile it was created for: another profile may set other limits and mounts."""

SCRATCH = {
    "/tmp": 0,  # noqa: S108  # a mount point in the container
    "/var/tmp": 0,  # noqa: S108
    "/run": 64 * 1024**2,
}
"""Where programs expect to write whatever image they are in: bytes by folder, 0 for the engine's own bound."""

IMMUTABLE_ENVIRONMENT = {"PYTHONNOUSERSITE": "1"}


def container_labels(given: Mapping[str, str] | Iterable[str] | None, *, profile: str) -> dict[str, str]:
    """The labels for `create_container`: the administrator's (docker-py takes a dict or a list of names), then ours.

    DockerSpawner renders these values as templates of its own, and so puts the names in.
    """
    labels = dict(given) if isinstance(given, Mapping) else dict.fromkeys(given or (), "")
    return {**labels, CONTAINER_LABEL: "{raw_username}/{raw_servername}", PROFILE_LABEL: profile}


def labels_of(found: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels of a container as `inspect_container` shows it."""
    labels: Mapping[str, str] = found["Config"].get("Labels") or {}
    return labels


def mounted_by_others(
    given: Mapping[str, Any], *, volume_binds: Mapping[str, Any], mount_binds: Iterable[Any]
) -> tuple[str, ...]:
    """Where a container gets mounts that are not ours.

    Args:
        given: The administrator's `extra_host_config`, rendered.
        volume_binds, mount_binds: DockerSpawner's properties of these names. It merges `given` into them: dicts are
            joined, everything else is replaced.
    """
    binds = given.get("binds") or {}
    return home.mount_targets(
        {
            "binds": {**volume_binds, **binds} if isinstance(binds, Mapping) else binds,
            "mounts": given.get("mounts") or mount_binds,
            "tmpfs": given.get("tmpfs"),
        }
    )


def scratch_flaw(scratch: Mapping[Any, Any]) -> str:
    """What is wrong with a setting of scratch space; "" where nothing is."""
    for folder, size_bytes in scratch.items():
        if not isinstance(folder, str) or not folder.startswith("/") or posixpath.normpath(folder).strip("/") == "":
            return f"{folder!r} is no folder in the container: write an absolute path"
        if set(folder) & set(":,"):
            return f"{folder!r} has a character that engines read as the end of a path"
        if not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or size_bytes < 0:
            return f"{folder} has the size {size_bytes!r}: write a number of bytes, or 0 for the engine's own bound"
    return ""


def host_config(
    given: Mapping[str, Any],
    *,
    mounted: Iterable[str],
    immutable: bool,
    scratch: Mapping[str, int],
    volumes: Mapping[str, str],
) -> dict[str, Any]:
    """The arguments for `create_host_config`: the administrator's on top of ours.

    Args:
        given: The administrator's `extra_host_config`.
        mounted: Where the administrator mounts something: none of our scratch places goes there or below.
        immutable: Read-only root filesystem, scratch space in memory.
        scratch: Its folders and their sizes in bytes, as `SCRATCH`.
        volumes: What `home.home_volumes` says: volume by folder.
    """
    merged = dict(given)
    # DockerSpawner's `remove` would have the engine remove the container, and nameless volumes with it.
    merged.setdefault("auto_remove", False)
    if immutable:
        mounted = tuple(mounted)
        free = {
            folder: _tmpfs_options(folder, size_bytes)
            for folder, size_bytes in scratch.items()
            if not home.is_mounted(mounted, folder)
        }
        merged.setdefault("read_only", True)
        merged["tmpfs"] = {**free, **home.tmpfs_by_target(given.get("tmpfs") or {})}
    if volumes:
        merged["binds"] = _with_volumes(given.get("binds") or {}, volumes)
    return merged


def _tmpfs_options(folder: str, size_bytes: int) -> str:
    # Libraries unpack programs into the temporary folders and run them; Docker's default is noexec.
    options = f"rw,{'noexec' if posixpath.normpath(folder) == '/run' else 'exec'},nosuid,nodev,mode=1777"
    return f"{options},size={size_bytes}" if size_bytes else options


def _with_volumes(binds: Any, volumes: Mapping[str, str]) -> Any:
    # A list replaces DockerSpawner's own binds and a dict is merged into them: keep the form.
    if isinstance(binds, list | tuple):
        return [*binds, *(f"{volume}:{target}:rw" for target, volume in volumes.items())]
    return {**binds, **{volume: {"bind": target, "mode": "rw"} for target, volume in volumes.items()}}
