"""Locks with wheels that are built from source: what names them, and how they are written and read."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import tomli_w
from packaging.pylock import Pylock

from prebuilt_spawner.environment.digest import environment_digest, lock_digest, source_identity
from prebuilt_spawner.environment.lock import (
    Lock,
    LockedSource,
    LockedWheel,
    built_wheel,
    parse_pylock,
    to_pylock,
)
from prebuilt_spawner.errors import MalformedRequest, UnresolvableRequest
from prebuilt_spawner.ledger.rows import lock_from_json, wheels_to_json

from .probes import make_probe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROBE = make_probe()
SETUPTOOLS = LockedWheel(
    name="setuptools",
    version="80.0",
    filename="setuptools-80.0-py3-none-any.whl",
    url="https://index.example/setuptools-80.0-py3-none-any.whl",
    sha256="c" * 64,
    size_bytes=10,
)
SOURCE = LockedSource(
    name="legacy",
    version="1.0",
    filename="legacy-1.0.tar.gz",
    url="https://index.example/legacy-1.0.tar.gz",
    sha256="a" * 64,
    size_bytes=5,
    base_digest="b" * 64,
    requires=(SETUPTOOLS,),
    metadata_sha256="d" * 64,
)
BUILT = built_wheel(SOURCE, filename="legacy-1.0-py3-none-any.whl", size_bytes=7)
LOCK = Lock(wheels=(BUILT, SETUPTOOLS))


def test_the_identity_of_a_source_never_changes_by_accident():
    """It is a part of every image's name that has one."""
    assert source_identity(SOURCE) == BUILT.sha256
    assert BUILT.sha256 == "afa91d79b4b1842663867dddbbb160ac90b9a83836fbfdff207263523fd984dd"


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "e" * 64},
        {"base_digest": "e" * 64},
        {"requires": ()},
        {"requires": (replace(SETUPTOOLS, sha256="e" * 64),)},
        {"version": "1.1"},
    ],
)
def test_whatever_decides_which_wheel_is_made_changes_the_identity(changes):
    assert source_identity(replace(SOURCE, **changes)) != BUILT.sha256


def test_what_the_wheel_turned_out_to_be_and_where_its_source_was_do_not_count():
    elsewhere = replace(SOURCE, url="https://other.example/x.tar.gz", size_bytes=None, metadata_sha256="")
    other = built_wheel(elsewhere, filename="legacy-1.0-cp311-cp311-linux_x86_64.whl", size_bytes=9)
    how = {"base_digest": "b" * 64, "platform": "linux/amd64", "layout_version": 1, "immutable": True}
    assert environment_digest(Lock(wheels=(other,)), **how) == environment_digest(Lock(wheels=(BUILT,)), **how)
    assert lock_digest(Lock(wheels=(other,))) == lock_digest(Lock(wheels=(BUILT,)))


def test_a_lock_says_which_of_its_packages_are_built():
    assert (LOCK.packages, LOCK.from_source) == (("legacy==1.0", "setuptools==80.0"), ("legacy==1.0",))


def test_what_is_written_is_a_pylock_file_that_others_read_and_the_same_lock():
    """Others see a source distribution, and pass over a table that is a tool's (PEP 751)."""
    document = tomllib.loads(to_pylock(LOCK))
    package = Pylock.from_dict(document).packages[0]
    assert package.wheels is None
    assert package.sdist is not None
    assert (package.sdist.name, package.sdist.hashes) == ("legacy-1.0.tar.gz", {"sha256": "a" * 64})
    assert parse_pylock(to_pylock(LOCK), PROBE) == LOCK


def test_on_another_base_it_is_another_build_of_the_same_pins():
    (wheel,) = parse_pylock(to_pylock(Lock(wheels=(BUILT,))), PROBE, base_digest="f" * 64).wheels
    assert wheel == built_wheel(replace(SOURCE, base_digest="f" * 64), filename=BUILT.filename, size_bytes=7)


def test_the_ledger_gives_back_what_it_was_given():
    assert lock_from_json(wheels_to_json(LOCK)) == LOCK


def test_a_lock_without_sources_is_kept_as_it_always_was():
    (row,) = wheels_to_json(Lock(wheels=(SETUPTOOLS,)))["wheels"]
    assert set(row) == {"name", "version", "filename", "url", "sha256", "size_bytes"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("base = ", "bass = "),
        ('base = "' + "b" * 64, 'base = "' + "b" * 63),
        ("metadata-sha256 = ", "metadata = "),
        ('metadata-sha256 = "d', 'metadata-sha256 = "x'),
        ("build-requires", "build"),
        ("[[packages.tool.prebuilt-spawner.build-requires]]", "[[packages.tool.prebuilt-spawner.build]]"),
        ("legacy-1.0-py3-none-any.whl", "../legacy-1.0-py3-none-any.whl"),
        ("legacy-1.0-py3-none-any.whl", "legacy-1.0.tar.gz"),
        ('name = "legacy-1.0.tar.gz"', 'name = "legacy.py"'),
    ],
)
def test_what_does_not_say_how_it_is_built_is_refused(old: str, new: str):
    text = to_pylock(Lock(wheels=(BUILT,)))
    assert old in text
    with pytest.raises(MalformedRequest):
        parse_pylock(text.replace(old, new), PROBE)


def test_a_source_that_somebody_else_locked_is_no_wheel():
    """Nothing says what its build needs."""
    document = tomllib.loads(to_pylock(Lock(wheels=(BUILT,))))
    del document["packages"][0]["tool"]
    with pytest.raises(UnresolvableRequest, match="no wheel"):
        parse_pylock(tomli_w.dumps(document), PROBE)
