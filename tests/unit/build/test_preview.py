"""Tests of `prebuilt_spawner.build.preview`: what a start would do, in words."""

from __future__ import annotations

import pytest

from prebuilt_spawner.build.preview import Preview, Readiness, as_summary, in_words

FOUR = ("alpha==1.0", "beta==1.0", "delta==2.0", "gamma==3.1")


def preview(readiness: Readiness = Readiness.UNBUILT, **known) -> Preview:
    return Preview(readiness=readiness, **known)


WORK = [
    ({}, ""),
    ({"seconds": 20.2}, ": about 20 s"),
    ({"packages": FOUR}, ": adds 4 packages"),
    ({"packages": FOUR[:1]}, ": adds 1 package"),
    ({"packages": ()}, ""),
    ({"packages": (), "size_bytes": 0, "seconds": 3}, ": about 3 s"),
    ({"size_bytes": 45_000_000}, ": 45 MB"),
    ({"seconds": 20, "packages": FOUR}, ": about 20 s, adds 4 packages"),
    ({"seconds": 20, "size_bytes": 45_000_000}, ": about 20 s, 45 MB"),
    ({"packages": FOUR, "size_bytes": 45_000_000}, ": adds 4 packages, 45 MB"),
    ({"seconds": 20, "packages": FOUR, "size_bytes": 45_000_000}, ": about 20 s, adds 4 packages, 45 MB"),
]


@pytest.mark.parametrize(("known", "words"), WORK)
def test_what_is_known_of_a_build_is_said_and_nothing_of_the_rest(known, words):
    assert in_words(preview(**known)) == f"Builds first{words}."
    assert as_summary(preview(**known)) == f"Your environment is built first{words}."


@pytest.mark.parametrize(
    ("from_source", "words"),
    [
        (FOUR[:1], "alpha from source"),
        (FOUR[:3], "alpha, beta, delta from source"),
        (FOUR, "alpha, beta, delta and 1 more from source"),
    ],
)
def test_what_is_built_from_source_is_named(from_source, words):
    """Whether there is an image of it or not."""
    known = {"packages": FOUR, "from_source": from_source}
    assert in_words(preview(**known)) == f"Builds first: adds 4 packages ({words})."
    assert as_summary(preview(**known)) == f"Your environment is built first: adds 4 packages ({words})."
    assert in_words(preview(Readiness.READY, **known)) == f"Starts at once ({words})."


@pytest.mark.parametrize("known", [known for known, _ in WORK])
def test_what_is_ready_starts_at_once_whatever_it_adds(known):
    assert in_words(preview(Readiness.READY, **known)) == "Starts at once."
    assert as_summary(preview(Readiness.READY, **known)) == "Your environment is ready and starts at once."


@pytest.mark.parametrize(
    ("waiting", "words", "summary"),
    [
        (0, "", ""),
        (1, ", 1 person is waiting", ": 1 person waits for it"),
        (3, ", 3 people are waiting", ": 3 people wait for it"),
    ],
)
def test_a_build_that_goes_on_is_said_with_those_who_wait(waiting, words, summary):
    going_on = preview(Readiness.BUILDING, waiting=waiting, packages=FOUR, seconds=20)
    assert in_words(going_on) == f"Is being built now{words}."
    assert as_summary(going_on) == f"Your environment is being built{summary}."


def test_a_failure_is_said_in_its_own_words():
    error = "No package is called nunpy. Did you mean numpy?"
    assert in_words(preview(Readiness.FAILED, error=error)) == f"Cannot work: {error}"
    assert in_words(preview(Readiness.FAILED)) == "Cannot work."
    assert as_summary(preview(Readiness.FAILED, error=error)) == ""


def test_nothing_is_said_where_nobody_knows():
    assert in_words(preview(Readiness.UNKNOWN)) == ""


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (1, "1 kB"),
        (1_499, "1 kB"),
        (850_000, "850 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (1_240_000, "1.2 MB"),
        (9_949_000, "9.9 MB"),
        (9_960_000, "10 MB"),
        (45_400_000, "45 MB"),
        (999_600_000, "1 GB"),
        (2_500_000_000, "2.5 GB"),
        (1_234_000_000_000, "1234 GB"),
    ],
)
def test_sizes_are_in_the_unit_that_people_read(size_bytes, words):
    assert in_words(preview(size_bytes=size_bytes)) == f"Builds first: {words}."


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "1 s"), (0.2, "1 s"), (1.6, "2 s"), (99, "99 s"), (100, "2 min"), (600, "10 min")]
)
def test_times_are_in_seconds_or_minutes(seconds, words):
    assert in_words(preview(seconds=seconds)) == f"Builds first: about {words}."
