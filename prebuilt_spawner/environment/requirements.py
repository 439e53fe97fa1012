"""Requirements: from what a user wrote to canonical PEP 508 strings, or to a refusal that names the offender.

A canonical requirement is printable ASCII, never begins with `-`, names no URL, and is one string for every spelling of
the same wish: `Foo_Bar [B,a] >= 1.0, <2` becomes `foo-bar[a,b]<2,>=1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import InvalidName, canonicalize_name, canonicalize_version

from ..errors import MalformedRequest
from .mistakes import MAX_REQUIREMENT_CHARACTERS, NOT_A_REQUIREMENT, TOO_LONG, TOO_MANY, filled, mistake_in
from .parsing import parsed_requirement
from .pasted import MAX_REQUEST_CHARACTERS, MAX_REQUIREMENTS, entries_of
from .quoting import kind_of, quoted

_MAX_SPECIFIERS = 20
"""Most version conditions on one name; whether they exclude each other takes a time that grows with their square."""

_ARBITRARY_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!*-]*")
_NAME = re.compile(r"[a-z0-9-]+")

# A marker is evaluated once to see whether it can be evaluated at all; which machine it stands for does not matter.
_SOME_ENVIRONMENT: Mapping[str, str] = {
    "implementation_name": "cpython",
    "implementation_version": "3.11.2",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_release": "6.1.0",
    "platform_system": "Linux",
    "platform_version": "1",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
}


def parse_requirements(request: str | Sequence[str], *, max_packages: int | None = None) -> tuple[str, ...]:
    """The canonical requirements of a request, sorted.

    Args:
        request: A list with one requirement in each entry, or text as `pasted` reads it: a requirements.txt, names
            beside each other, install commands.
        max_packages: Most entries that are read; None stands for `MAX_REQUIREMENTS`.

    Returns:
        Names as PEP 503 says, extras and specifiers sorted, versions as PEP 440 spells them, markers kept. What is
        wished twice for one name under one marker is one requirement.

    Raises:
        MalformedRequest: An entry is no requirement by name and version, or two entries contradict each other. The
            message names it.
    """
    limit = MAX_REQUIREMENTS if max_packages is None else max_packages
    entries = _entries_of_text(request, limit) if isinstance(request, str) else _entries_of_list(request, limit)
    return _merged(_parse_one(entry) for entry in entries)


def merge_requirements(*groups: Sequence[str]) -> tuple[str, ...]:
    """The canonical requirements of all groups together, as if they had been asked for in one request.

    Raises:
        MalformedRequest: Two of them contradict each other.
    """
    return _merged(_parse_one(entry) for group in groups for entry in group)


def requirement_name(canonical: str) -> str:
    """The normalised name that a canonical requirement begins with."""
    match = _NAME.match(canonical)
    if match is None:
        raise ValueError(f"not a canonical requirement: {quoted(canonical)}")
    return match[0]


def _entries_of_list(request: Sequence[str], limit: int) -> list[str]:
    if not isinstance(request, list | tuple):
        raise MalformedRequest(
            f"The packages must be a list or text with one package on each line, not {kind_of(request)}.",
            about="packages",
        )
    _check_count(len(request), limit)
    for entry in request:
        if not isinstance(entry, str):
            raise MalformedRequest(
                f"Each entry of the package list must be text such as 'pandas>=2', not {kind_of(entry)}.",
                about="packages",
            )
    _check_length(sum(map(len, request)))
    return list(request)


def _entries_of_text(request: str, limit: int) -> list[str]:
    _check_length(len(request))
    entries = entries_of(request)
    _check_count(len(entries), limit)
    for entry in entries:
        _refuse(entry.mistake or mistake_in(entry.text), entry.text)
    return [entry.text for entry in entries]


def _check_length(characters: int) -> None:
    if characters > MAX_REQUEST_CHARACTERS:
        values = {"count": f"{characters:,}", "limit": f"{MAX_REQUEST_CHARACTERS:,}"}
        raise MalformedRequest(filled(TOO_LONG, values), about="packages")


def _check_count(entries: int, limit: int) -> None:
    if entries > limit:
        raise MalformedRequest(filled(TOO_MANY, {"count": f"{entries:,}", "limit": f"{limit:,}"}), about="packages")


def _refuse(mistake: str, entry: str) -> None:
    if mistake:
        raise MalformedRequest(mistake, entry=entry, about="packages")


@dataclass(frozen=True, kw_only=True)
class _Wish:
    """One requirement, taken apart into canonical pieces."""

    name: str
    extras: frozenset[str]
    specifiers: frozenset[str]
    marker: str

    def __str__(self) -> str:
        extras = f"[{','.join(sorted(self.extras))}]" if self.extras else ""
        marker = f"; {self.marker}" if self.marker else ""
        return f"{self.name}{extras}{','.join(sorted(self.specifiers))}{marker}"

    @property
    def satisfiable(self) -> bool:
        return not SpecifierSet(",".join(self.specifiers)).is_unsatisfiable()


def _merged(wishes: Iterable[_Wish]) -> tuple[str, ...]:
    merged: dict[tuple[str, str], _Wish] = {}
    for wish in wishes:
        key = (wish.name, wish.marker)
        before = merged.get(key)
        if before is None:
            merged[key] = wish
        elif before != wish:
            merged[key] = _both(before, wish)
    return tuple(sorted(map(str, merged.values())))


def _both(one: _Wish, other: _Wish) -> _Wish:
    both = _Wish(
        name=one.name, extras=one.extras | other.extras, specifiers=one.specifiers | other.specifiers, marker=one.marker
    )
    _check_size(both)
    if both.specifiers != one.specifiers and not both.satisfiable:
        raise MalformedRequest(
            f"{one.name} is asked for as {quoted(str(one))} and as {quoted(str(other))}, and no version is both. "
            "Leave one out.",
            about="packages",
            entry=str(other),
        )
    return both


def _check_size(wish: _Wish) -> None:
    # Also after merging and spelling out: what we return must be readable for us again.
    if len(wish.specifiers) > _MAX_SPECIFIERS:
        raise MalformedRequest(
            f"There are {len(wish.specifiers)} version conditions on {quoted(wish.name)}; "
            f"at most {_MAX_SPECIFIERS} are read.",
            about="packages",
            entry=wish.name,
        )
    characters = len(str(wish))
    if characters > MAX_REQUIREMENT_CHARACTERS:
        raise MalformedRequest(
            f"What is asked of {quoted(wish.name)} has {characters:,} characters; "
            f"at most {MAX_REQUIREMENT_CHARACTERS} are read.",
            about="packages",
            entry=wish.name,
        )


def _parse_one(entry: str) -> _Wish:
    """One entry as a wish.

    The checks before parsing say in better words what was tried, and refuse what the parser would let through.
    """
    text = entry.strip(" \t")
    _refuse(mistake_in(text), text)
    try:
        requirement = parsed_requirement(text)
        name = canonicalize_name(requirement.name, validate=True)
        extras = frozenset(canonicalize_name(extra, validate=True) for extra in requirement.extras)
        specifiers = frozenset(map(_canonical_specifier, requirement.specifier))
    except (InvalidRequirement, InvalidName, ValueError) as error:
        message = filled(NOT_A_REQUIREMENT, {"quoted": quoted(text)})
        raise MalformedRequest(message, entry=text, about="packages") from error
    marker = "" if requirement.marker is None else _canonical_marker(requirement.marker, text)
    wish = _Wish(name=name, extras=extras, specifiers=specifiers, marker=marker)
    _check_size(wish)
    if not wish.satisfiable:
        raise MalformedRequest(
            f"The versions in {quoted(text)} exclude each other: none satisfies it. Leave one out.",
            about="packages",
            entry=text,
        )
    return wish


def _canonical_specifier(specifier: Specifier) -> str:
    """One spelling for each specifier (PEP 440).

    A zero at the end means nothing, but after `~=` (which bounds by it), before `.*`, and after `===` (which compares
    texts).
    """
    operator, version = specifier.operator, specifier.version
    if operator == "===":
        if not _ARBITRARY_VERSION.fullmatch(version):
            raise ValueError(f"{quoted(version)} is no version")
        return f"==={version.lower()}"
    if version.endswith(".*"):
        return f"{operator}{canonicalize_version(version[:-2], strip_trailing_zero=False)}.*"
    return f"{operator}{canonicalize_version(version, strip_trailing_zero=operator != '~=')}"


def _canonical_marker(marker: Marker, text: str) -> str:
    try:
        # As a "requirement", so that `extra` has no value and is refused.
        marker.evaluate(dict(_SOME_ENVIRONMENT), context="requirement")
        return str(marker)
    except (KeyError, ValueError) as error:
        raise MalformedRequest(
            f"The condition after ';' in {quoted(text)} cannot be evaluated. Compare things such as python_version or "
            "sys_platform with a quoted value; extras go in brackets after the name.",
            about="packages",
            entry=text,
        ) from error
