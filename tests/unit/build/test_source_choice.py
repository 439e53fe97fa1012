"""Which source distribution is built."""

from __future__ import annotations

import pytest
from packaging.specifiers import SpecifierSet

from prebuilt_spawner.build.source_choice import choose_source
from prebuilt_spawner.build.sources import ListedSource
from prebuilt_spawner.environment.lock import LockedFile


def listed(version: str, *, ending: str = ".tar.gz", **more) -> ListedSource:
    filename = f"demo-{version}{ending}"
    file = LockedFile(name="demo", version=version, filename=filename, url="https://x.test/", sha256="a" * 64)
    return ListedSource(file=file, **more)


LISTED = (
    listed("1.0"),
    listed("1.1", yanked=True),
    listed("2.0", ending=".zip"),
    listed("2.0"),
    listed("2.1", requires_python=">=3.13"),
    listed("2.2", requires_python=">=x"),
    listed("3.0rc1"),
)


@pytest.mark.parametrize(
    ("specifier", "preferred", "filename"),
    [
        ("", "", "demo-2.2.tar.gz"),
        ("<2.2", "", "demo-2.0.tar.gz"),
        ("<2", "", "demo-1.0.tar.gz"),
        ("==1.1", "", "demo-1.1.tar.gz"),
        ("==1.*", "", "demo-1.0.tar.gz"),
        ("==2.1", "", ""),
        (">=3.0rc1", "", "demo-3.0rc1.tar.gz"),
        (">2.2", "", "demo-3.0rc1.tar.gz"),
        (">=4", "", ""),
        ("", "1.0", "demo-1.0.tar.gz"),
        (">=2", "1.0", "demo-2.2.tar.gz"),
        ("", "9", "demo-2.2.tar.gz"),
    ],
)
def test_the_newest_that_is_admitted_is_taken(specifier: str, preferred: str, filename: str):
    """And the preferred one before it; what was withdrawn only by its own name, a pre-release where nothing else is
    left, an archive as everybody makes them today before others."""
    found = choose_source(LISTED, SpecifierSet(specifier), python_version="3.11.2", preferred=preferred)
    assert (found.file.filename if found else "") == filename
