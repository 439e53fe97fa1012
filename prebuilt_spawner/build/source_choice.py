"""Which source distribution is built. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from .sources import ListedSource


def choose_source(
    listed: Sequence[ListedSource], specifier: SpecifierSet, *, python_version: str, preferred: str = ""
) -> ListedSource | None:
    """The newest one that is admitted, and the preferred version before it. None where there is none.

    As PEP 440 and PEP 592 say: a pre-release where it is asked for, or where there is nothing else; a withdrawn one
    only where exactly that version is asked for.

    Args:
        listed: What the index has.
        specifier: The versions that are wanted.
        python_version: Of the base, in full.
        preferred: The version to keep where it is admitted; "" for none.
    """
    exact = any(one.operator in ("==", "===") and not one.version.endswith(".*") for one in specifier)
    fitting = [
        one for one in listed if (exact or not one.yanked) and _admits_python(one.requires_python, python_version)
    ]
    wanted = [one for one in fitting if preferred and Version(one.file.version) == Version(preferred)]
    if wanted and specifier.contains(wanted[0].file.version, prereleases=True):
        fitting = wanted
    admitted = set(specifier.filter([Version(one.file.version) for one in fitting]))
    return max(
        (one for one in fitting if Version(one.file.version) in admitted),
        # Of several archives of one version, the one that everybody makes today.
        key=lambda one: (Version(one.file.version), one.file.filename.endswith(".tar.gz")),
        default=None,
    )


def _admits_python(requires_python: str, python_version: str) -> bool:
    try:
        return SpecifierSet(requires_python).contains(python_version, prereleases=True)
    except InvalidSpecifier:
        return True  # as installers take it: an author's slip keeps nobody from trying
