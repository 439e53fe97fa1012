"""What a container of ours is created with besides what DockerSpawner and the administrator say. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import home

CONTAINER_LABEL = "prebuilt_spawner.container"
"""Whose container it is, `<user>/<server>`. A container without it is never touched. No image has it."""
PROFILE_LABEL = "prebuilt_spawner.profile"
"""Slug of the profile it was created for: another profile may set other limits and mounts."""

_SCRATCH = {
    # Libraries unpack programs into the temporary folders and run them; Docker's default is noexec.
    "/tmp": "rw,exec,nosuid,nodev,mode=1777",  # noqa: S108  # a mount point in the container
    "/var/tmp": "rw,exec,nosuid,nodev,mode=1777",  # noqa: S108
    "/run": "rw,nosuid,nodev,noexec,mode=1777",
}

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


def host_config(
    given: Mapping[str, Any], *, mounted: Iterable[str], immutable: bool, volumes: Mapping[str, str]
) -> dict[str, Any]:
    """The arguments for `create_host_config`: the administrator's on top of ours.

    Args:
        given: The administrator's `extra_host_config`.
        mounted: Where the administrator mounts something: none of our scratch places goes there or below.
        immutable: Read-only root filesystem, scratch space in memory.
        volumes: What `home.home_volumes` says: volume by folder.
    """
    merged = dict(given)
    # DockerSpawner's `remove` would have the engine remove the container, and nameless volumes with it.
    merged.setdefault("auto_remove", False)
    if immutable:
        mounted = tuple(mounted)
        free = {target: options for target, options in _SCRATCH.items() if not home.is_mounted(mounted, target)}
        merged.setdefault("read_only", True)
        merged["tmpfs"] = {**free, **home.tmpfs_by_target(given.get("tmpfs") or {})}
    if volumes:
        merged["binds"] = _with_volumes(given.get("binds") or {}, volumes)
    return merged


def _with_volumes(binds: Any, volumes: Mapping[str, str]) -> Any:
    # A list replaces DockerSpawner's own binds and a dict is merged into them: keep the form.
    if isinstance(binds, list | tuple):
        return [*binds, *(f"{volume}:{target}:rw" for target, volume in volumes.items())]
    return {**binds, **{volume: {"bind": target, "mode": "rw"} for target, volume in volumes.items()}}
