"""User options: what a start says about its environment."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import MalformedRequest
from .digest import canonical_json
from .quoting import kind_of, quoted
from .requirements import parse_requirements

_KEYS = ("profile", "packages", "image", "refresh")
_MAX_NAME_CHARACTERS = 1024


@dataclass(frozen=True, kw_only=True)
class UserOptions:
    """A start's options, read.

    Attributes:
        profile: Slug of the profile; None leaves the choice to the profile list's default.
        packages: Canonical requirements, sorted.
        image: A key of `allowed_images`; None for the configured image.
        refresh: Whether a newer lock is wanted. It is an act, not a setting: see `without_refresh`.
    """

    profile: str | None = None
    packages: tuple[str, ...] = ()
    image: str | None = None
    refresh: bool = False


def parse_user_options(options: Mapping[str, Any]) -> UserOptions:
    """Read `{"profile": slug, "packages": list or text, "image": key, "refresh": bool}`.

    All are optional, and null is as good as absent.

    Raises:
        MalformedRequest: There is another key, or a value is not of its form. The message names it.
    """
    if not isinstance(options, Mapping):
        raise MalformedRequest(f"The user options must be an object, not {kind_of(options)}.")
    for key in options:
        if key not in _KEYS:
            raise MalformedRequest(f"{quoted(key)} is not an option. Options are {', '.join(_KEYS)}.")
    packages = options.get("packages")
    refresh = options.get("refresh")
    if refresh is not None and not isinstance(refresh, bool):
        raise MalformedRequest(f"The option refresh must be true or false, not {_shown(refresh)}.", about="refresh")
    return UserOptions(
        profile=_name(options, "profile"),
        packages=() if packages is None else parse_requirements(packages),
        image=_name(options, "image"),
        refresh=bool(refresh),
    )


def without_refresh(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as they may be stored: JupyterHub repeats stored options, and a refresh must not be repeated."""
    return {key: value for key, value in options.items() if key != "refresh"}


def choice_digest(options: Mapping[str, Any]) -> str:
    """The same, 64 hex digits, for options that choose the same: whatever the order and spelling of packages is, and
    whatever `refresh` says. "" where they choose nothing."""
    try:
        read = parse_user_options(options)
    except MalformedRequest:
        # Only what was read before is started; rules that become stricter forget nobody's choice.
        form: Any = without_refresh(options)
    else:
        chosen = {"profile": read.profile, "packages": list(read.packages), "image": read.image}
        form = {key: value for key, value in chosen.items() if value}
    return hashlib.sha256(canonical_json(form)).hexdigest() if form else ""


def _name(options: Mapping[str, Any], key: str) -> str | None:
    """A short text; an empty one, which a form sends for what was not chosen, is as good as none."""
    value = options.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise MalformedRequest(f"The option {key} must be text, not {kind_of(value)}.", about=key)
    if len(value) > _MAX_NAME_CHARACTERS or not value.isprintable():
        raise MalformedRequest(f"The option {key} must be a name, not {quoted(value)}.", about=key)
    return value


def _shown(value: object) -> str:
    return quoted(value) if isinstance(value, str) else kind_of(value)
