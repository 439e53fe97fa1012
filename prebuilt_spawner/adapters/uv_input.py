"""What uv is asked: a resolve request as the files that `uv pip compile` reads. Pure.

uv is to find packages that can live beside those of the base, so it resolves them all together:

- requirements: what is asked for, and the bare name of everything that the base has, so that nothing of it is broken;
- pins: the base's present versions. uv keeps the versions of an earlier output file where the requirements allow it
  and replaces them where they do not;
- constraints: the packages that the image's server is made of stay exactly as they are;
- metadata-only wheels: every package of the base in its present version, because no index may have it (conda's, the
  distribution's and local packages), or only as source;
- settings: the dependencies of those versions as the *base* has them, whatever an index says of the same version.

What is inconsistent in the base as it is would make every request fail, so such dependencies are left out.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import tomli_w
from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidName, canonicalize_name
from packaging.version import InvalidVersion, Version

from ..build.interface import ResolveRequest
from ..environment.base import BaseProbe, InstalledDistribution
from ..environment.parsing import parsed_requirement

# The wheels say no time of their own, so that the same base gives the same bytes; zip knows no earlier one.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class UvInput:
    """The files that uv reads, as texts.

    Attributes:
        requirements: In requirements.txt form.
        constraints: In requirements.txt form.
        pins: A pylock file without any wheels.
        settings: A `uv.toml`.
        versions: What the base has and uv is told of: version by normalised name.
        protected: Those of them that must stay as they are.
    """

    requirements: str
    constraints: str
    pins: str
    settings: str
    versions: Mapping[str, Version]
    protected: Mapping[str, Version]


def uv_input(request: ResolveRequest, protected: Sequence[str]) -> UvInput:
    """Put a request into uv's words.

    Args:
        request: What is asked for, and the base.
        protected: Names of packages that the image's server cannot run without.
    """
    versions = present_versions(request.probe)
    kept: dict[str, Version] = {name: versions[name] for name in map(canonicalize_name, protected) if name in versions}
    pins = {name: str(version) for name, version in versions.items()} | dict(request.preferences)
    return UvInput(
        requirements=_lines([*request.requirements, *sorted(versions)]),
        constraints=_lines(f"{name}=={version}" for name, version in sorted(kept.items())),
        pins=tomli_w.dumps(
            {
                "lock-version": "1.0",
                "created-by": "prebuilt-spawner",
                "packages": [{"name": name, "version": version} for name, version in sorted(pins.items())],
            }
        ),
        settings=tomli_w.dumps({"dependency-metadata": list(_metadata(request.probe, versions))}),
        versions=versions,
        protected=kept,
    )


def present_versions(probe: BaseProbe) -> dict[str, Version]:
    """The base's packages by normalised name, but for those whose name or version no resolver could read."""
    versions: dict[str, Version] = {}
    for name, distribution in probe.distributions.items():
        try:
            versions[canonicalize_name(name, validate=True)] = Version(distribution.version)
        except (InvalidName, InvalidVersion):
            continue
    return versions


def metadata_wheel(name: str, version: Version) -> tuple[str, bytes]:
    """File name and bytes of a wheel without files: it says that this version exists (binary distribution format 1.0).

    uv takes its dependencies from the settings.
    """
    stem = f"{name.replace('-', '_')}-{version}"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: prebuilt-spawner\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files["RECORD"] = "".join(f"{stem}.dist-info/{path},,\n" for path in (*files, "RECORD"))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(f"{stem}.dist-info/{path}", _ZIP_EPOCH), text)
    return f"{stem}-py3-none-any.whl", buffer.getvalue()


def _lines(lines: Iterator[str] | Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _metadata(probe: BaseProbe, versions: Mapping[str, Version]) -> Iterator[dict[str, object]]:
    """uv's `dependency-metadata` setting. Without Requires-Python: the base has the package, so it is moot."""
    present = _Present(probe, versions)
    for name, version in sorted(versions.items()):
        distribution = probe.distributions[name]
        yield {
            "name": name,
            "version": str(version),
            "requires-dist": list(present.kept_requirements(distribution)),
            "provides-extra": sorted(distribution.provides_extra),
        }


class _Present:
    """Says which dependencies the base meets today."""

    def __init__(self, probe: BaseProbe, versions: Mapping[str, Version]) -> None:
        self._distributions = probe.distributions
        self._versions = versions
        self._markers = dict(probe.markers)

    def kept_requirements(self, distribution: InstalledDistribution) -> Iterator[str]:
        """Its dependencies without those that the base does not meet.

        Dependencies of an extra stay as they are: they count only for somebody who asks for the extra.
        """
        for text in distribution.requires:
            requirement = _parsed(text)
            if requirement is None:
                continue
            applies = self._applies(requirement, "")
            if applies is None:
                continue
            if applies:
                if not self._has_version(requirement):
                    continue
                requirement.extras = {extra for extra in requirement.extras if self._has_extra(requirement.name, extra)}
            yield str(requirement)

    def _applies(self, requirement: Requirement, extra: str) -> bool | None:
        """None where the marker cannot be evaluated."""
        if requirement.marker is None:
            return True
        try:
            return requirement.marker.evaluate({**self._markers, "extra": extra})
        except (UndefinedComparison, UndefinedEnvironmentName, ValueError):
            return None

    def _has_version(self, requirement: Requirement) -> bool:
        version = self._versions.get(canonicalize_name(requirement.name))
        return version is not None and requirement.specifier.contains(version, prereleases=True)

    def _has_extra(self, name: str, extra: str, above: frozenset[tuple[str, str]] = frozenset()) -> bool:
        """Whether everything is there that this extra of a package needs. Extras may name each other in circles."""
        name = canonicalize_name(name)
        key = (name, canonicalize_name(extra))
        if key in above:
            return True
        for requirement in filter(None, map(_parsed, self._distributions[name].requires)):
            if not self._applies(requirement, key[1]) or self._applies(requirement, ""):
                continue
            if not self._has_version(requirement):
                return False
            if not all(self._has_extra(requirement.name, further, above | {key}) for further in requirement.extras):
                return False
        return True


def _parsed(text: str) -> Requirement | None:
    """The requirement by name: where a URL stands in it, that says where the base's package came from once."""
    try:
        requirement = parsed_requirement(text)
    except InvalidRequirement:
        return None
    requirement.url = None
    return requirement
