"""How `MemoryResolver` finds versions that fit together: depth first over a few packages, for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..build.failure import Failure, Kind
from ..build.interface import ResolveRequest
from ..environment.lock import LockedWheel
from ..environment.names import suggestion
from ..errors import UnresolvableRequest


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One version of a package that could be in the environment."""

    version: Version
    requires: tuple[Requirement, ...]
    wheel: LockedWheel | None
    """None for what the base has."""


class Search:
    """One resolution. A failed branch is None; `blame` is the last requirement that could not be met."""

    def __init__(
        self, index: Mapping[str, Mapping[Version, Candidate]], protected: frozenset[str], request: ResolveRequest
    ) -> None:
        self._index = index
        self._protected = protected
        self._request = request
        self._blame = ""
        self._installed = {name: Version(found.version) for name, found in request.probe.distributions.items()}
        self._base = {name: self._base_candidate(name) for name in self._installed}

    def run(self) -> dict[str, Candidate]:
        """What is in the environment, by name.

        Raises:
            UnresolvableRequest: No versions fit together, or a package is not on the index.
        """
        asked = [Requirement(line) for line in self._request.requirements]
        for requirement in asked:
            name = canonicalize_name(requirement.name)
            if self._applies(requirement, ()) and name not in self._index and name not in self._base:
                near = suggestion(name, {*self._index, *self._base})
                raise Failure(
                    kind=Kind.NO_SUCH_PACKAGE,
                    what=f"{name} is not in the package index.",
                    advice=f"Did you mean {near}?" if near else "Check the spelling.",
                    package=name,
                ).error()
        chosen = self._solve([(line, ()) for line in (*asked, *map(Requirement, self._base))], {}, {})
        if chosen is None:
            raise UnresolvableRequest(
                f"No versions of the packages fit together: {self._blame} cannot be met. "
                "Ask for other versions, or leave one of the packages out."
            )
        return chosen

    def _solve(
        self,
        pending: list[tuple[Requirement, tuple[str, ...]]],
        chosen: dict[str, Candidate],
        allowed: dict[str, SpecifierSet],
    ) -> dict[str, Candidate] | None:
        """Complete the choice, going one call deeper for each package that is still open."""
        allowed = dict(allowed)
        for position, (requirement, extras) in enumerate(pending):
            if not self._applies(requirement, extras):
                continue
            name = canonicalize_name(requirement.name)
            allowed[name] = allowed.get(name, SpecifierSet()) & requirement.specifier
            self._blame = str(requirement)
            if name not in chosen:
                return self._branch(requirement, pending[position + 1 :], chosen, allowed)
            if not self._permits(allowed[name], chosen[name].version, name):
                return None
        return chosen

    def _branch(
        self,
        requirement: Requirement,
        pending: list[tuple[Requirement, tuple[str, ...]]],
        chosen: dict[str, Candidate],
        allowed: dict[str, SpecifierSet],
    ) -> dict[str, Candidate] | None:
        name = canonicalize_name(requirement.name)
        for candidate in self._candidates(name):
            if self._permits(allowed[name], candidate.version, name):
                further = [(line, tuple(requirement.extras)) for line in candidate.requires]
                found = self._solve([*pending, *further], {**chosen, name: candidate}, allowed)
                if found is not None:
                    return found
        return None

    def _permits(self, allowed: SpecifierSet, version: Version, name: str) -> bool:
        """As PEP 440 says: a prerelease only where it is asked for, or is in use already."""
        early = bool(allowed.prereleases) or version in self._liked(name)
        return allowed.contains(version, prereleases=True) and (early or not version.is_prerelease)

    def _candidates(self, name: str) -> Iterator[Candidate]:
        published = dict(self._index.get(name, {}))
        base = self._base.get(name)
        if base is not None:
            published[base.version] = base
            if name in self._protected:
                published = {base.version: base}
        liked = [version for version in self._liked(name) if version in published]
        for version in dict.fromkeys([*liked, *sorted(published, reverse=True)]):
            yield published[version]

    def _liked(self, name: str) -> list[Version]:
        preferred = self._request.preferences.get(name)
        base = self._installed.get(name)
        return [*([Version(preferred)] if preferred else []), *([base] if base is not None else [])]

    def _base_candidate(self, name: str) -> Candidate:
        """What the base has, with those of its requirements that the base meets: what is inconsistent in the base by
        itself does not make every request fail."""
        lines = map(Requirement, self._request.probe.distributions[name].requires)
        met = tuple(line for line in lines if self._met_by_base(line))
        return Candidate(version=self._installed[name], requires=met, wheel=None)

    def _met_by_base(self, requirement: Requirement) -> bool:
        version = self._installed.get(canonicalize_name(requirement.name))
        return version is not None and requirement.specifier.contains(version, prereleases=True)

    def _applies(self, requirement: Requirement, extras: tuple[str, ...]) -> bool:
        if requirement.marker is None:
            return True
        markers = dict(self._request.probe.markers)
        return any(requirement.marker.evaluate({**markers, "extra": extra}) for extra in extras or ("",))
