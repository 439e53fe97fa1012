"""What the server's packages need to run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .base import BaseProbe
from .parsing import parsed_requirement


def protected_closure(names: Iterable[str], probe: BaseProbe) -> frozenset[str]:
    """These distributions and, as the base has them, all that they depend on, and so on, by normalised name.

    A dependency counts where its marker (PEP 508) holds in the base, with the extras that were asked for; one whose
    marker cannot be evaluated counts, too. Names that the base does not have stay in the result and lead nowhere.
    """
    # A distribution without extra is one with the extra "", which is how PEP 508 evaluates its markers.
    found: set[tuple[str, str]] = set()
    waiting = [(str(canonicalize_name(name)), "") for name in names]
    while waiting:
        wanted = waiting.pop()
        if wanted not in found:
            found.add(wanted)
            waiting.extend(_needs(*wanted, probe=probe))
    return frozenset(name for name, _ in found)


def _needs(name: str, extra: str, *, probe: BaseProbe) -> Iterator[tuple[str, str]]:
    """The (name, extra) pairs that this one depends on and the base has."""
    distribution = probe.distributions.get(name)
    for text in distribution.requires if distribution is not None else ():
        try:
            requirement = parsed_requirement(text)
        except InvalidRequirement:
            continue
        needed = str(canonicalize_name(requirement.name))
        if needed in probe.distributions and _applies(requirement, extra, probe):
            yield needed, ""
            yield from ((needed, str(canonicalize_name(further))) for further in requirement.extras)


def _applies(requirement: Requirement, extra: str, probe: BaseProbe) -> bool:
    if requirement.marker is None:
        return True
    try:
        return requirement.marker.evaluate({**probe.markers, "extra": extra})
    except (UndefinedComparison, UndefinedEnvironmentName, ValueError):
        return True
