"""How a lock's wheels are kept in a row: JSON with a schema version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..environment.lock import Lock, LockedFile, LockedSource, LockedWheel
from ..environment.urls import without_credentials
from ..image.stacking import Stack, StackedLayer

SCHEMA_VERSION = 1


def wheels_to_json(lock: Lock) -> dict[str, Any]:
    """The lock as JSON values: `{"schema": 1, "wheels": [{name, version, filename, url, sha256, size_bytes}, …]}`.
    A wheel that is built has a further `source`: the same of the source distribution, with `base_digest`,
    `metadata_sha256` and `requires`, which are wheels again.

    A lock's URLs hold no credentials. It is made sure once more: more people read a database's backups than the
    hub's configuration.
    """
    return {"schema": SCHEMA_VERSION, "wheels": [_wheel_to_json(wheel) for wheel in lock.wheels]}


def _wheel_to_json(wheel: LockedWheel) -> dict[str, Any]:
    if wheel.source is None:
        return _file_to_json(wheel)
    source = {
        **_file_to_json(wheel.source),
        "base_digest": wheel.source.base_digest,
        "metadata_sha256": wheel.source.metadata_sha256,
        "requires": [_file_to_json(requirement) for requirement in wheel.source.requires],
    }
    return {**_file_to_json(wheel), "source": source}


def _file_to_json(file: LockedFile) -> dict[str, Any]:
    return {
        "name": file.name,
        "version": file.version,
        "filename": file.filename,
        "url": without_credentials(file.url),
        "sha256": file.sha256,
        "size_bytes": file.size_bytes,
    }


def _wheel_from_json(value: Mapping[str, Any]) -> LockedWheel:
    found = value.get("source")
    if found is None:
        return LockedWheel(**value)
    requires = tuple(LockedWheel(**requirement) for requirement in found["requires"])
    return LockedWheel(**{**value, "source": LockedSource(**{**found, "requires": requires})})


def stack_to_json(stack: Stack) -> list[list[Any]]:
    """The layers as JSON values: `[[diff ID, [SHA-256 of a wheel, …]], …]`, lowest first."""
    return [[layer.diff_id, sorted(layer.wheels)] for layer in stack.layers]


def stack_from_json(digest: str, value: Sequence[Any]) -> Stack:
    """The stack that `stack_to_json` wrote.

    Raises:
        ValueError: It is of a form that this version does not know.
    """
    try:
        layers = tuple(StackedLayer(diff_id=diff_id, wheels=frozenset(wheels)) for diff_id, wheels in value)
    except TypeError as error:
        raise ValueError("stored layers are of a form that this version does not know") from error
    return Stack(digest=digest, layers=layers)


def lock_from_json(value: Mapping[str, Any]) -> Lock:
    """The lock that `wheels_to_json` wrote.

    Raises:
        ValueError: It is of a form that this version does not know.
    """
    if not isinstance(value, Mapping) or value.get("schema") != SCHEMA_VERSION:
        raise ValueError("a stored lock is of a form that this version does not know")
    try:
        return Lock(wheels=tuple(_wheel_from_json(wheel) for wheel in value["wheels"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("a stored lock is incomplete") from error
