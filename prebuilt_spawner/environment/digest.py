"""Digests: SHA-256 of canonical bytes. They are names that outlive a version of this package.

The *base digest* names a base image by content. The *request digest* names what was asked (requirements, base content,
index settings) and finds a lock again; the *lineage digest* names the same whatever the base's content is. The
*environment digest* names what is installed and is the image's tag. The *lock digest* names a lock's wheels alone. The
*source identity* names what a wheel is built from, and stands for the hash that no two builds have in common.

Every digest is made of a canonical form that says what `kind` it is and which `schema` it follows. A change of any of
them gives every environment a new name, so it needs a new `SCHEMA`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import MalformedRequest
from .reference import parse_reference
from .spec import SCHEMA, EnvironmentSpec
from .urls import canonical_index_url

if TYPE_CHECKING:  # locks hold digests themselves
    from .lock import Lock, LockedSource, LockedWheel

# What of an image's configuration decides how its containers run (OCI image spec `config`, and what Docker adds to it).
# The rest (Hostname, Image, AttachStdin, …) is left over from builds, and one of the two image stores leaves it out.
_RUNTIME_KEYS = (
    "ArgsEscaped",
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "StopTimeout",
    "User",
    "Volumes",
    "WorkingDir",
)
# Spellings of one platform; containerd writes the default variant out or leaves it away.
_ARCHITECTURES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
_DEFAULT_VARIANTS = {"amd64": "v1", "arm64": "v8", "arm": "v7"}


def canonical_json(value: Any) -> bytes:
    """The one way to write a JSON value: keys sorted, no spaces, ASCII.

    Raises:
        TypeError, ValueError: It is no JSON value (NaN and infinity are none).
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=_plain_mapping
    )
    return text.encode("ascii")


def runtime_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an image's configuration that decides how its containers run, in normal form.

    Keys that are null, empty or false are left out, since the image stores differ in whether they write them. What is
    empty and still means something stays: a port's or volume's empty object, a label with an empty value, a stop
    timeout of 0. The order of Env, Entrypoint and Cmd is kept. Normalising twice changes nothing.
    """
    normal: dict[str, Any] = {}
    for key in _RUNTIME_KEYS:
        value: Any = config.get(key)
        if isinstance(value, Mapping):
            value = dict(value)
        elif isinstance(value, tuple | list):
            value = list(value)
        if key == "Healthcheck" and isinstance(value, Mapping):
            # Docker inherits what is zero here.
            value = {part: setting for part, setting in value.items() if setting}
        if value or (key == "StopTimeout" and value is not None):
            normal[key] = value
    return normal


def base_digest(
    *, diff_ids: Sequence[str], config: Mapping[str, Any], os: str, architecture: str, variant: str = ""
) -> str:
    """The identity of a base image by content: equal in every image store and under every name.

    Args:
        diff_ids: The uncompressed layers' digests (`sha256:…`), lowest first.
        config: The image's configuration, whole or as `runtime_config` gives it.
        os, architecture, variant: The OCI platform.
    """
    return _sha256(
        {
            "schema": SCHEMA,
            "kind": "base",
            "diff_ids": list(diff_ids),
            "config": runtime_config(config),
            "platform": _canonical_platform(os, architecture, variant),
        }
    )


def request_digest(
    spec: EnvironmentSpec,
    *,
    base_digest: str,
    index_url: str | None,
    extra_index_urls: Sequence[str] = (),
    scope: str = "",
    profile_lock: str = "",
) -> str:
    """What was asked, on which base content.

    Args:
        spec: The requirements.
        base_digest: Of the base's content, 64 hex digits.
        index_url: None for the resolver's default. Credentials in it do not count.
        extra_index_urls: In the order in which they are asked, which counts; credentials do not.
        scope: Whose locks are meant: "" for free lists, `profile:<slug>` for a profile, `extras:<slug>` for a profile
            and more.
        profile_lock: The `lock_digest` of the profile's lock that the packages are added to; "" where they stand on
            none, and then it is no part of the form.
    """
    form = {
        **spec.canonical(),
        "kind": "request",
        "base": base_digest,
        **_indexes(index_url, extra_index_urls),
        "scope": scope,
    }
    return _sha256({**form, "profile_lock": profile_lock} if profile_lock else form)


def lineage_digest(
    spec: EnvironmentSpec,
    *,
    base_reference: str,
    index_url: str | None,
    extra_index_urls: Sequence[str] = (),
    scope: str = "",
) -> str:
    """What was asked, on the base of this name, whatever its content is, and that of the profile's lock.

    The other arguments are those of `request_digest`.
    """
    return _sha256(
        {
            **spec.canonical(),
            "kind": "lineage",
            "base": _canonical_reference(base_reference),
            **_indexes(index_url, extra_index_urls),
            "scope": scope,
        }
    )


def lock_digest(lock: Lock) -> str:
    """What makes two locks the same: names, versions and hashes.

    File names and URLs are left out: an index may serve the same bytes from elsewhere tomorrow.
    """
    return _sha256({"schema": SCHEMA, "kind": "lock", "wheels": _canonical_wheels(lock.wheels)})


def source_identity(source: LockedSource) -> str:
    """What decides which wheel is made of a source distribution: its bytes, those of what is installed for its build,
    and the base in which it is built. Where they were found does not count, nor what the wheel turned out to be."""
    return _sha256(
        {
            "schema": SCHEMA,
            "kind": "source",
            "name": source.name,
            "version": source.version,
            "sha256": source.sha256.lower(),
            "requires": _canonical_wheels(source.requires),
            "base": source.base_digest,
        }
    )


def environment_digest(
    lock: Lock, *, base_digest: str, platform: str, layout_version: int | str, immutable: bool
) -> str:
    """What is installed: the image's tag.

    Where the wheels were found does not count, only what they are.

    Args:
        lock: The wheels.
        base_digest: Of the base's content, 64 hex digits.
        platform: As `BaseImage.platform`.
        layout_version: Which rules put the files into layers; the image writer's own number.
        immutable: Whether the image carries the notice and settings that go with an immutable container.
    """
    return _sha256(
        {
            "schema": SCHEMA,
            "kind": "environment",
            "wheels": _canonical_wheels(lock.wheels),
            "conda": [],
            "base": base_digest,
            "platform": _canonical_platform(*platform.split("/")),
            "layout": str(layout_version),
            "immutable": bool(immutable),
        }
    )


def _canonical_wheels(wheels: Sequence[LockedWheel]) -> list[dict[str, str]]:
    found = sorted((wheel.name, wheel.version, wheel.sha256.lower()) for wheel in wheels)
    return [{"name": name, "version": version, "sha256": sha256} for name, version, sha256 in found]


def _indexes(index_url: str | None, extra_index_urls: Sequence[str]) -> dict[str, Any]:
    extra = dict.fromkeys(canonical_index_url(url) for url in extra_index_urls)
    return {"index_url": canonical_index_url(index_url), "extra_index_urls": [url for url in extra if url]}


def _canonical_platform(os: str, architecture: str = "", variant: str = "", *rest: str) -> str:
    architecture = _ARCHITECTURES.get(architecture.lower(), architecture.lower())
    variant = variant.lower()
    if variant == _DEFAULT_VARIANTS.get(architecture):
        variant = ""
    return "/".join(part for part in (os.lower(), architecture, variant, *rest) if part)


def _canonical_reference(reference: str) -> str:
    try:
        return str(parse_reference(reference))
    except MalformedRequest:
        # An administrator may name a base by the engine's image ID.
        return reference


def _plain_mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _sha256(form: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(form)).hexdigest()
