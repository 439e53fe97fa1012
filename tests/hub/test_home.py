"""Names and places of the volumes that hold homes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilt_spawner.hub.home import covers, home_volume, home_volumes, mount_targets, parts_of

NAMES = st.text(min_size=1, max_size=20)
# Lower-case, as escaping makes every letter of its hexadecimal digits.
SERVERS = st.tuples(NAMES, st.one_of(st.just(""), NAMES))


@given(one=SERVERS, other=SERVERS)
def test_two_servers_never_share_a_home(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (home_volume(*one) == home_volume(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b-c"), ("a-b", "c")),
        (("a", "b"), ("a--b", "")),
        (("a", "b"), ("a-2d-2db", "")),
        (("a", "Lab"), ("a", "lab")),
        (("A", ""), ("a", "")),
        (("a-", "b"), ("a", "-b")),
        (("é", ""), ("e", "")),
    ],
)
def test_names_that_look_alike_have_homes_of_their_own(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert home_volume(*one) != home_volume(*other)


@given(server=SERVERS)
def test_every_name_is_one_that_the_engine_takes(server: tuple[str, str]) -> None:
    """Docker's grammar for names of volumes; nothing of it is a template."""
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", home_volume(*server))


@pytest.mark.parametrize(
    ("target", "place", "expected"),
    [
        ("/home/jovyan", "/home/jovyan", True),
        ("/home/jovyan/", "/home/jovyan", True),
        ("/home", "/home/jovyan", True),
        ("/", "/home/jovyan", True),
        ("/home/jovyan/work", "/home/jovyan", False),
        ("/home/jo", "/home/jovyan", False),
        ("/home/x/../jovyan", "/home/jovyan", True),
    ],
)
def test_a_mount_holds_a_folder_that_is_at_or_below_it(target: str, place: str, expected: bool) -> None:
    assert covers(target, place) == expected


def test_the_parts_of_a_home_are_named_once_and_sorted() -> None:
    assert parts_of(["/home/a/b", "/home/a/b/", "/data", "/home/a/a"], "/home/a") == ("/home/a/a", "/home/a/b")


@pytest.mark.parametrize("home", ["/", "", ".", "//"])
def test_nothing_is_mounted_over_the_root(home: str) -> None:
    assert home_volumes(name="v", home=home, declared=(), mounted=()) == {}


def test_declared_volumes_within_what_is_mounted_are_left_alone() -> None:
    volumes = home_volumes(name="v", home="/h", declared=["/h/files/data", "/h/other"], mounted=["/h/files"])
    assert volumes.keys() == {"/h", "/h/other"}
    assert len(set(volumes.values())) == 2


def test_mounts_are_found_in_every_form_that_docker_takes() -> None:
    config = {
        "binds": ["a:/a", "b:/b:ro", "/c"],
        "mounts": [{"Target": "/d"}, {"target": "/e"}],
        "tmpfs": ["/f:size=1m", "/g"],
    }
    assert mount_targets(config) == ("/a", "/b", "/d", "/e", "/f", "/g")
    assert mount_targets({"binds": {"a": "/a", "b": {"bind": "/b"}}, "tmpfs": {"/c": ""}}) == ("/a", "/b", "/c")
    assert mount_targets({}) == ()
