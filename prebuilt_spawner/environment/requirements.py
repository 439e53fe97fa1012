"""Requirements: from what a user wrote to canonical PEP 508 strings, or to a refusal that names the offender.

A canonical requirement is printable ASCII, never begins with `-`, names no URL, and is one string for every spelling of
the same wish: `Foo_Bar [B,a] >= 1.0, <2` becomes `foo-bar[a,b]<2,>=1`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import InvalidName, canonicalize_name, canonicalize_version

from ..errors import MalformedRequest
from .quoting import kind_of, named_character, quoted

MAX_REQUEST_CHARACTERS = 64 * 1024
"""Longest request that is read at all; the longest real requirements files have a few thousand characters."""
MAX_REQUIREMENT_CHARACTERS = 500
"""Longest single requirement."""
MAX_REQUIREMENTS = 1000
"""Most requirements in one request, whatever a policy allows."""
_MAX_SPECIFIERS = 20
"""Most version conditions on one name; whether they exclude each other takes a time that grows with their square."""
_MAX_PARENTHESES = 20
"""Markers nest by parentheses, and are parsed recursively."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_NON_ASCII = re.compile(r"[^\x00-\x7f]")
_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_ARBITRARY_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!*-]*")
_NAME = re.compile(r"[a-z0-9-]+")
_FILE_NAME = re.compile(r"\.(?:whl|egg|zip|tgz|tar|tar\.[a-z0-9]+|txt|toml|ya?ml)\Z", re.IGNORECASE)
_COMMAND = re.compile(
    r"[!%]?[ \t]*(?:python[0-9.]*[ \t]+-m[ \t]+)?(?:uv[ \t]+)?(?:pip[0-9.]*|conda|mamba|micromamba|uv|apt|apt-get)"
    r"[ \t]+(?:install|add)\b",
    re.IGNORECASE,
)

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
        request: A list with one requirement in each entry, or text in the form of a requirements.txt: one requirement
            on each line, comments, blank lines, `\\` at the end of a line that goes on, any line ends, a BOM.
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
            f"The packages must be a list or text with one package on each line, not {kind_of(request)}."
        )
    _check_count(len(request), limit)
    for entry in request:
        if not isinstance(entry, str):
            raise MalformedRequest(
                f"Each entry of the package list must be text such as 'pandas>=2', not {kind_of(entry)}."
            )
    _check_length(sum(map(len, request)))
    return list(request)


def _entries_of_text(request: str, limit: int) -> list[str]:
    _check_length(len(request))
    lines = request.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    entries = [entry for entry in _joined(lines) if entry]
    _check_count(len(entries), limit)
    return entries


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Logical lines, without comments and without space around them."""
    pending = ""
    for line in lines:
        control = _CONTROL_IN_TEXT.search(line)
        if control is not None:
            raise MalformedRequest(
                f"The line {quoted(line.strip())} holds the control character {named_character(control[0])}. "
                "Leave it out."
            )
        # Comments go first: a backslash at the end of one does not carry it on, or it would swallow the next package.
        line = _COMMENT.sub("", line).strip(" \t")
        if line.endswith("\\"):
            pending += line[:-1]
            continue
        yield (pending + line).strip(" \t")
        pending = ""
    yield pending.strip(" \t")


def _check_length(characters: int) -> None:
    if characters > MAX_REQUEST_CHARACTERS:
        raise MalformedRequest(
            f"The package list has {characters:,} characters; at most {MAX_REQUEST_CHARACTERS:,} are read. "
            "Leave out what other packages bring with them anyway."
        )


def _check_count(entries: int, limit: int) -> None:
    if entries > limit:
        raise MalformedRequest(f"The package list has {entries:,} entries; at most {limit:,} are read.")


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
            "Leave one out."
        )
    return both


def _check_size(wish: _Wish) -> None:
    # Also after merging and spelling out: what we return must be readable for us again.
    if len(wish.specifiers) > _MAX_SPECIFIERS:
        raise MalformedRequest(
            f"There are {len(wish.specifiers)} version conditions on {quoted(wish.name)}; "
            f"at most {_MAX_SPECIFIERS} are read."
        )
    characters = len(str(wish))
    if characters > MAX_REQUIREMENT_CHARACTERS:
        raise MalformedRequest(
            f"What is asked of {quoted(wish.name)} has {characters:,} characters; "
            f"at most {MAX_REQUIREMENT_CHARACTERS} are read."
        )


def _parse_one(entry: str) -> _Wish:
    """One entry as a wish.

    The checks before parsing do not decide what is a requirement (the parser does): they say in better words what was
    tried, and refuse what the parser would let through.
    """
    text = entry.strip(" \t")
    _refuse_odd_characters(text)
    _refuse_what_is_no_name(text)
    if text.count("(") > _MAX_PARENTHESES:
        raise MalformedRequest(f"The requirement {quoted(text)} has too many parentheses. Leave them out.")
    try:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name, validate=True)
        extras = frozenset(canonicalize_name(extra, validate=True) for extra in requirement.extras)
        specifiers = frozenset(map(_canonical_specifier, requirement.specifier))
    except (InvalidRequirement, InvalidName, ValueError) as error:
        raise MalformedRequest(
            f"{quoted(text)} is not a package requirement. Write one package on each line or in each entry, "
            "as 'pandas' or 'pandas>=2'."
        ) from error
    marker = "" if requirement.marker is None else _canonical_marker(requirement.marker, text)
    wish = _Wish(name=name, extras=extras, specifiers=specifiers, marker=marker)
    _check_size(wish)
    if not wish.satisfiable:
        raise MalformedRequest(f"The versions in {quoted(text)} exclude each other: none satisfies it. Leave one out.")
    return wish


def _refuse_odd_characters(text: str) -> None:
    if not text:
        raise MalformedRequest("An entry of the package list is empty. Leave it out.")
    if len(text) > MAX_REQUIREMENT_CHARACTERS:
        raise MalformedRequest(
            f"The requirement {quoted(text)} has {len(text):,} characters; "
            f"at most {MAX_REQUIREMENT_CHARACTERS} are read."
        )
    control = _CONTROL.search(text)
    if control is not None:
        what = "a line break" if control[0] in "\r\n" else f"the control character {named_character(control[0])}"
        raise MalformedRequest(f"{quoted(text)} holds {what}. Each entry of the package list is one requirement.")
    foreign = _NON_ASCII.search(text)
    if foreign is not None:
        raise MalformedRequest(
            f"{quoted(text)} holds the character {named_character(foreign[0])}. Write requirements in ASCII."
        )


def _refuse_what_is_no_name(text: str) -> None:
    """What people try besides names, each with what to do instead."""
    wish = text.partition(";")[0].rstrip(" \t")
    if "--hash" in text:
        raise MalformedRequest(
            f"Leave the hashes out of {quoted(text)}: every download is checked against a lock anyway."
        )
    if re.match(r"(?:-e\b|--editable)", text):
        raise MalformedRequest(
            f"{quoted(text)} is an editable install, which an image cannot hold. Ask for released packages."
        )
    if text.startswith("-"):
        raise MalformedRequest(
            f"{quoted(text)} is an option, and options are the administrator's. Ask only for packages."
        )
    if _COMMAND.match(text):
        raise MalformedRequest(f"{quoted(text)} is a command. Write only the packages, one on each line.")
    if "$" in text or "`" in text:
        raise MalformedRequest(f"{quoted(text)} holds a variable or a command. Write only packages, one on each line.")
    if "://" in text or "@" in wish:
        raise MalformedRequest(
            f"{quoted(text)} names a URL. Packages come from the index, by name: write it as 'name==version'."
        )
    if "\\" in text:
        raise MalformedRequest(f"{quoted(text)} holds a backslash, which no requirement has. Leave it out.")
    if wish.startswith((".", "~", "/")) or "/" in wish or _FILE_NAME.search(wish):
        raise MalformedRequest(f"{quoted(text)} is a file or a folder. Packages come from the index, by name.")


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
            "sys_platform with a quoted value; extras go in brackets after the name."
        ) from error
