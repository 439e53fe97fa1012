"""What a user may ask for, and what may come of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from ..errors import PolicyRefusal
from .lock import Lock, LockedWheel
from .parsing import parsed_requirement
from .quoting import kind_of, quoted
from .sizes import size_in_words

_SHOWN_NAMES = 3
"""How many of the packages that were asked for a message names."""

_RULE = re.compile(r"([A-Za-z0-9._*?-]+)[ \t]*((?:===|[<>=!~]=|[<>]).*)?")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An entry of a list of packages.

    Attributes:
        pattern: A glob over normalised names.
        versions: Those that it is about; empty for all.
        reason: Why, for users, on one line and without a full stop at its end; "" for none.
    """

    pattern: str
    versions: SpecifierSet
    reason: str = ""

    def names(self, name: str) -> bool:
        """Whether it is about some versions of this package."""
        return fnmatchcase(name, self.pattern)

    def holds_for(self, name: str, version: str) -> bool:
        """Whether it is about this version of this package."""
        return self.names(name) and self.versions.contains(version, prereleases=True)

    @property
    def because(self) -> str:
        """How its reason goes on a sentence."""
        return f": {self.reason}" if self.reason else ""


def read_rules(entries: Any, *, source: str = "the list of packages") -> tuple[Rule, ...]:
    """The rules of a list, or of a dict from entry to reason.

    Args:
        entries: Each is a name (`pandas`), a glob (`acme-*`), or either with versions (`pandas>=2`).
        source: What it is called in messages, for the administrator.

    Raises:
        ValueError: It is nothing of that form.
    """
    if isinstance(entries, Mapping):
        pairs: Iterable[tuple[Any, Any]] = entries.items()
    elif isinstance(entries, list | tuple | set | frozenset):
        pairs = ((entry, "") for entry in entries)
    else:
        raise ValueError(f"{source} must be a list, or a dict from entry to reason, not {kind_of(entries)}")
    return tuple(_rule(entry, reason, source) for entry, reason in pairs)


def _rule(entry: Any, reason: Any, source: str) -> Rule:
    match = _RULE.fullmatch(entry.strip()) if isinstance(entry, str) else None
    if match is None:
        raise ValueError(
            f"{quoted(entry)} in {source} is neither a name, a glob with * and ?, "
            "nor one of these with versions such as 'pandas>=2'"
        )
    if not isinstance(reason, str):
        raise ValueError(f"the reason of {quoted(entry)} in {source} must be text, not {kind_of(reason)}")
    try:
        versions = SpecifierSet(match[2] or "")
    except InvalidSpecifier as error:
        raise ValueError(f"{quoted(entry)} in {source} has no valid versions") from error
    return Rule(pattern=canonicalize_name(match[1]), versions=versions, reason=" ".join(reason.split()).rstrip(". "))


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The limits for one user. A profile's own packages, and what they need, are the administrator's choice and exempt.

    Attributes:
        allow_custom_packages: Whether the user may ask for packages at all.
        allowed_packages: What the user may ask for by name; what that needs comes along. Empty means no limit.
        denied_packages: What may neither be asked for nor come along, even if it is allowed as well.
        max_packages: Most names in one request.
        max_environment_bytes: Most bytes of wheels that may come of one request; 0 is no limit.
        max_builds_per_hour: Most starts for which something is resolved or built; 0 is no limit.
        container_user: As whom the user's containers start, as the engine takes it; "" for the base's own user.
    """

    allow_custom_packages: bool = False
    allowed_packages: tuple[Rule, ...] = ()
    denied_packages: tuple[Rule, ...] = ()
    max_packages: int = 100
    max_environment_bytes: int = 10 * 1024**3
    max_builds_per_hour: int = 60
    container_user: str = ""


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
    wishes = [parsed_requirement(requirement) for requirement in requirements]
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


def check_lock(
    policy: Policy, lock: Lock, *, requirements: Sequence[str], exempt: Lock | None = None, user_name: str = ""
) -> None:
    """Refuse what the policy does not allow to be installed, whoever asked for it and whatever brought it in.

    Args:
        policy: As for `check_request`, which the requirements have passed.
        lock: What would be installed.
        requirements: The user's own.
        exempt: What the profile alone would install.
        user_name: As for `check_request`.

    Raises:
        PolicyRefusal: Names the package, and what brought it in as far as that is known.
    """
    whom = f" for {user_name}" if user_name else ""
    known = set() if exempt is None else set(exempt.packages)
    asked = tuple(dict.fromkeys(parsed_requirement(requirement).name for requirement in requirements))
    added = [wheel for wheel in lock.wheels if f"{wheel.name}=={wheel.version}" not in known]
    for wheel in added:
        _check_wheel(policy, wheel, asked, whom)
    _check_size(policy, added, whom)


def _check_wheel(policy: Policy, wheel: LockedWheel, asked: Sequence[str], whom: str) -> None:
    denial = next((rule for rule in policy.denied_packages if rule.holds_for(wheel.name, wheel.version)), None)
    if denial is not None:
        brought = _brought_in_by(wheel, asked)
        advice = f"Ask for another version of {wheel.name}" if denial.versions else "Ask for something else"
        raise PolicyRefusal(
            f"{wheel.name} {wheel.version} is not allowed{whom}{denial.because}. {brought}"
            f"{advice}, or ask the administrator.",
            about="packages",
            package=wheel.name,
            entry=asked[0] if len(asked) == 1 else wheel.name,
        )
    # What is asked for was found to admit allowed versions only; this holds whatever a resolver makes of it.
    rules = [rule for rule in policy.allowed_packages if rule.names(wheel.name)]
    if wheel.name in asked and policy.allowed_packages and not any(_offers(rule, wheel) for rule in rules):
        raise PolicyRefusal(
            f"{wheel.name} {wheel.version} is not among what is allowed{whom}. "
            "Ask for another version of it, or ask the administrator.",
            about="packages",
            package=wheel.name,
            entry=wheel.name,
        )


def _check_size(policy: Policy, wheels: Sequence[LockedWheel], whom: str) -> None:
    """Of those whose size the index says; see `max_unsized_bytes` of `WheelStore.fetch` for the others."""
    largest = sorted((wheel for wheel in wheels if wheel.size_bytes), key=lambda wheel: -(wheel.size_bytes or 0))
    total_bytes = sum(wheel.size_bytes or 0 for wheel in largest)
    if policy.max_environment_bytes and total_bytes > policy.max_environment_bytes:
        shown = ", ".join(
            f"{wheel.name} {wheel.version} with {size_in_words(wheel.size_bytes or 0)}"
            for wheel in largest[:_SHOWN_NAMES]
        )
        raise PolicyRefusal(
            f"These packages have {size_in_words(total_bytes)} together with what they need; at most "
            f"{size_in_words(policy.max_environment_bytes)} are allowed{whom}. The largest: {shown}. "
            "Leave some out, or ask the administrator.",
            about="packages",
        )


def _offers(rule: Rule, wheel: LockedWheel) -> bool:
    return rule.versions.contains(wheel.version, prereleases=True)


def _brought_in_by(wheel: LockedWheel, asked: Sequence[str]) -> str:
    """A sentence, with the space after it: a lock does not say what needs what."""
    if wheel.name in asked or not asked:
        return ""
    if len(asked) == 1:
        return f"{asked[0]}, which you asked for, brings it in. "
    shown = ", ".join(asked[:_SHOWN_NAMES])
    more = f" and {len(asked) - _SHOWN_NAMES} more" if len(asked) > _SHOWN_NAMES else ""
    return f"Something that you asked for brings it in ({shown}{more}). "


def _check_denied(policy: Policy, wish: Requirement, whom: str) -> None:
    for rule in policy.denied_packages:
        if not rule.names(wish.name):
            continue
        if not rule.versions:
            raise PolicyRefusal(
                f"The package {wish.name} is not allowed{whom}{rule.because}. Leave it out, or ask the administrator.",
                about="packages",
                entry=wish.name,
            )
        if not (wish.specifier & rule.versions).is_unsatisfiable():
            raise PolicyRefusal(
                f"{quoted(str(wish))} admits versions that are not allowed{whom} ({rule.versions}){rule.because}. "
                "Ask for other versions of it.",
                about="packages",
                entry=str(wish),
            )


def _check_allowed(policy: Policy, wish: Requirement, whom: str) -> None:
    if not policy.allowed_packages:
        return
    offered = [rule for rule in policy.allowed_packages if rule.names(wish.name)]
    if not offered:
        raise PolicyRefusal(
            f"The package {wish.name} is not among those that are allowed{whom}. "
            "Leave it out, or ask the administrator.",
            about="packages",
            entry=wish.name,
        )
    if not any(_within(wish.specifier, rule.versions) for rule in offered):
        raise PolicyRefusal(
            f"{quoted(str(wish))} admits versions that are not allowed{whom}{offered[0].because}. "
            f"Write it as {quoted(f'{wish.name}{offered[0].versions}')}.",
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
