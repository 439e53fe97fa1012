"""Profiles: environments that the administrator offers by name, in KubeSpawner's form of a profile list.

Errors in a profile list are the administrator's, who sees them when the hub starts: they are `ValueError`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from ..errors import MalformedRequest
from .quoting import kind_of, quoted
from .requirements import parse_requirements

_SLUG = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_KEYS = (
    "display_name",
    "slug",
    "description",
    "default",
    "packages",
    "lock",
    "image",
    "allow_extra_packages",
    "spawner_override",
)
_REFUSED_KEYS = {
    "profile_options": "is not supported; write one profile for each choice",
    "kubespawner_override": "is KubeSpawner's; write spawner_override with this spawner's traits",
}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One entry of a profile list.

    Attributes:
        slug: Its name in user options.
        display_name: Its name on the form.
        description: More about it, for the form.
        default: Whether it applies where none is chosen; exactly one of a list is.
        requirements: Canonical.
        lock: The pylock file that the administrator keeps for it, as the entry names it; "" where there is none.
        image: The base image; None for the configured one.
        allow_extra_packages: Whether users may add packages; None for what `allow_custom_packages` says.
        spawner_override: Values of the spawner's traits.
    """

    slug: str
    display_name: str
    description: str = ""
    default: bool = False
    requirements: tuple[str, ...] = ()
    lock: str = ""
    image: str | None = None
    allow_extra_packages: bool | None = None
    spawner_override: Mapping[str, Any] = field(default_factory=dict)


def read_profiles(profile_list: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]]) -> tuple[Profile, ...]:
    """The profiles of a list of entries, or of a dict from slug to entry.

    Where no entry is the default, the first becomes it.

    Raises:
        ValueError: An entry cannot be read, two have one slug, or two are the default. The message names it.
    """
    if isinstance(profile_list, Mapping):
        profiles = [_read_entry(entry, str(slug), slug) for slug, entry in profile_list.items()]
    elif isinstance(profile_list, list | tuple):
        profiles = [_read_entry(entry, f"number {number}") for number, entry in enumerate(profile_list, start=1)]
    else:
        raise ValueError(f"profile_list must be a list or a dict, not {kind_of(profile_list)}")
    _refuse_repeated(profile.slug for profile in profiles)
    defaults = [profile.slug for profile in profiles if profile.default]
    if len(defaults) > 1:
        raise ValueError(f"profile_list has more than one default: {', '.join(defaults)}")
    if profiles and not defaults:
        profiles[0] = replace(profiles[0], default=True)
    return tuple(profiles)


def choose_profile(profiles: Sequence[Profile], slug: str | None) -> Profile | None:
    """The profile that a start's options mean: the one of this slug; without a slug the default, else the first.

    None where there are no profiles and none is asked for.

    Raises:
        MalformedRequest: No profile has this slug.
    """
    if slug is None:
        return next((profile for profile in profiles if profile.default), profiles[0] if profiles else None)
    for profile in profiles:
        if profile.slug == slug:
            return profile
    if not profiles:
        raise MalformedRequest(
            f"There is no profile {quoted(slug)}: this hub has no profiles. Leave the option out.", about="profile"
        )
    known = ", ".join(profile.slug for profile in profiles)
    raise MalformedRequest(f"There is no profile {quoted(slug)}. There are: {known}.", about="profile")


def _read_entry(entry: Any, place: str, key: str | None = None) -> Profile:
    where = f"profile {quoted(place)}" if key is not None else f"profile {place}"
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} must be a dict, not {kind_of(entry)}")
    for name in entry:
        _refuse_unknown(name, where)
    display_name = _text(entry, "display_name", where)
    if not display_name:
        raise ValueError(f"{where} has no display_name")
    where = f"profile {quoted(display_name)}"
    override = entry.get("spawner_override") or {}
    if not isinstance(override, Mapping):
        raise ValueError(f"spawner_override of {where} must be a dict, not {kind_of(override)}")
    return Profile(
        slug=_slug(entry, display_name, key, where),
        display_name=display_name,
        description=_text(entry, "description", where),
        default=_flag(entry, "default", where) or False,
        requirements=_requirements(entry, where),
        lock=_text(entry, "lock", where),
        image=_text(entry, "image", where) or None,
        allow_extra_packages=_flag(entry, "allow_extra_packages", where),
        spawner_override=dict(override),
    )


def _refuse_unknown(name: Any, where: str) -> None:
    if name in _KEYS:
        return
    if name in _REFUSED_KEYS:
        raise ValueError(f"{name} of {where} {_REFUSED_KEYS[name]}")
    near = get_close_matches(str(name)[:100], _KEYS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_KEYS)}"
    raise ValueError(f"{where} has an unknown key {quoted(name)}; {hint}")


def _refuse_repeated(slugs: Iterable[str]) -> None:
    seen: set[str] = set()
    for slug in slugs:
        if slug in seen:
            raise ValueError(f"two profiles have the slug {quoted(slug)}; give one of them a slug of its own")
        seen.add(slug)


def _slug(entry: Mapping[str, Any], display_name: str, key: str | None, where: str) -> str:
    slug = _text(entry, "slug", where)
    if key is not None and slug and slug != key:
        raise ValueError(f"{where} has the slug {quoted(slug)} and the key {quoted(key)}; they must be the same")
    slug = slug or (key if key is not None else _slug_of(display_name))
    if not isinstance(slug, str) or not _SLUG.fullmatch(slug):
        raise ValueError(f"{where} has no usable slug: write one of ASCII letters, digits and '-', at most 100 long")
    return slug


def _slug_of(display_name: str) -> str:
    """As KubeSpawner makes it: lower case, accents dropped, a `-` for each run of anything else."""
    ascii_name = unicodedata.normalize("NFKD", display_name).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:100].strip("-")


def _requirements(entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
    packages = entry.get("packages")
    if packages is None:
        return ()
    try:
        if isinstance(packages, list | tuple) and all(isinstance(entry, str) for entry in packages):
            return _parsed(tuple(packages))
        return _parsed(packages) if isinstance(packages, str) else parse_requirements(packages)
    except MalformedRequest as error:
        raise ValueError(f"packages of {where}: {error.message}") from error


@lru_cache(maxsize=1024)
def _parsed(packages: str | tuple[str, ...]) -> tuple[str, ...]:
    """Parsed once: a profile list is read for each form and each start."""
    return parse_requirements(packages)


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{key} of {where} must be text, not {kind_of(value)}")
    return value


def _flag(entry: Mapping[str, Any], key: str, where: str) -> bool | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{key} of {where} must be True or False, not {kind_of(value)}")
    return value
