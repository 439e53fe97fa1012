"""What a user may ask for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from ..errors import PolicyRefusal
from .quoting import quoted

_RULE = re.compile(r"([A-Za-z0-9._*?-]+)[ \t]*((?:===|[<>=!~]=|[<>]).*)?")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The limits for one user. They hold for the names that the user asks for, not for what those need.

    Attributes:
        allow_custom_packages: Whether the user may ask for packages at all.
        allowed_packages, denied_packages: Each entry is a name (`pandas`), a glob (`acme-*`), or either with versions
            (`pandas>=2`). Empty means no limit; what is denied is denied even if it is allowed as well.
        max_packages: Most names in one request.

    Raises:
        ValueError: An entry is not of that form.
    """

    allow_custom_packages: bool = False
    allowed_packages: tuple[str, ...] = ()
    denied_packages: tuple[str, ...] = ()
    max_packages: int = 100

    def __post_init__(self) -> None:
        for entry in (*self.allowed_packages, *self.denied_packages):
            _rule(entry)


def check_request(policy: Policy, requirements: Sequence[str], *, user_name: str = "") -> None:
    """Refuse what the policy does not allow this user to ask for.

    Args:
        policy: The policy of the user whose server it is, whoever makes the call.
        requirements: Canonical; the user's own, without those of a profile.
        user_name: Whose policy it is, for the message.

    Raises:
        PolicyRefusal: Names the first package that may not be asked for, and what to do.
    """
    if not requirements:
        return
    whom = f" for {user_name}" if user_name else ""
    if not policy.allow_custom_packages:
        raise PolicyRefusal(
            f"Asking for packages (here {quoted(requirements[0])}) is not allowed{whom}. "
            "Start without a package list, or ask the administrator.",
            about="packages",
            entry=requirements[0],
        )
    wishes = [Requirement(requirement) for requirement in requirements]
    names = {wish.name for wish in wishes}
    if len(names) > policy.max_packages:
        raise PolicyRefusal(
            f"{len(names)} packages are asked for; at most {policy.max_packages} are allowed{whom}. "
            "Leave out what other packages bring with them anyway.",
            about="packages",
        )
    for wish in wishes:
        _check_denied(policy, wish, whom)
        _check_allowed(policy, wish, whom)


def _check_denied(policy: Policy, wish: Requirement, whom: str) -> None:
    for entry in policy.denied_packages:
        pattern, versions = _rule(entry)
        if not fnmatchcase(wish.name, pattern):
            continue
        if not versions:
            raise PolicyRefusal(
                f"The package {wish.name} is not allowed{whom}. Leave it out, or ask the administrator.",
                about="packages",
                entry=wish.name,
            )
        if not (wish.specifier & versions).is_unsatisfiable():
            raise PolicyRefusal(
                f"{quoted(str(wish))} admits versions that are not allowed{whom} ({versions}). "
                "Ask for other versions of it.",
                about="packages",
                entry=str(wish),
            )


def _check_allowed(policy: Policy, wish: Requirement, whom: str) -> None:
    rules = [_rule(entry) for entry in policy.allowed_packages]
    if not rules:
        return
    offered = [versions for pattern, versions in rules if fnmatchcase(wish.name, pattern)]
    if not offered:
        raise PolicyRefusal(
            f"The package {wish.name} is not among those that are allowed{whom}. "
            "Leave it out, or ask the administrator.",
            about="packages",
            entry=wish.name,
        )
    if not any(_within(wish.specifier, versions) for versions in offered):
        raise PolicyRefusal(
            f"{quoted(str(wish))} admits versions that are not allowed{whom}. "
            f"Write it as {quoted(f'{wish.name}{offered[0]}')}.",
            about="packages",
            entry=str(wish),
        )


def _within(wished: SpecifierSet, offered: SpecifierSet) -> bool:
    """Whether every version that is wished is offered: it is not known yet which one will be taken."""
    if not offered or wished == offered:
        return True
    try:
        return wished.is_subset(offered)
    except ValueError:
        # `===` compares texts: it is in no range of versions.
        return False


@lru_cache(maxsize=1024)
def _rule(entry: str) -> tuple[str, SpecifierSet]:
    """An entry as a glob over normalised names, and the versions it is about (empty for all)."""
    match = _RULE.fullmatch(entry.strip())
    if match is None:
        raise ValueError(
            f"{quoted(entry)} in allowed_packages or denied_packages is neither a name, a glob with * and ?, "
            "nor one of these with versions such as 'pandas>=2'"
        )
    try:
        return canonicalize_name(match[1]), SpecifierSet(match[2] or "")
    except InvalidSpecifier as error:
        raise ValueError(f"{quoted(entry)} in allowed_packages or denied_packages has no valid versions") from error
