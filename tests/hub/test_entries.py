"""What is remembered of failed starts, and for how long."""

from __future__ import annotations

import gc
import weakref

import pytest

from prebuilt_spawner.errors import MalformedRequest, PolicyRefusal, UnresolvableRequest
from prebuilt_spawner.hub.entries import REASON_SECONDS, Attempt, Entries, FailedAttempts, Reason

OPTIONS = {"profile": "maths", "packages": ["six", "sixx"], "refresh": True}
ERROR = UnresolvableRequest("No package is called sixx.", package="sixx")


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class User:
    pass


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def attempts(clock: Clock) -> FailedAttempts:
    return FailedAttempts(clock=clock)


def test_an_attempt_is_remembered_with_its_reason(attempts: FailedAttempts) -> None:
    user = User()
    attempts.note(user, "", OPTIONS, ERROR)
    assert attempts.last(user, "") == Attempt(
        entries=Entries(profile="maths", packages="six\nsixx", refresh=True),
        reason=Reason(message=ERROR.message, about="packages", entry="sixx"),
    )


def test_the_reason_goes_after_a_while_and_the_entries_stay(attempts: FailedAttempts, clock: Clock) -> None:
    """So does the wish for newer versions, which is an act."""
    user = User()
    attempts.note(user, "", OPTIONS, ERROR)
    clock.seconds += REASON_SECONDS - 1
    last = attempts.last(user, "")
    assert last is not None
    assert last.reason is not None
    clock.seconds += 1
    assert attempts.last(user, "") == Attempt(entries=Entries(profile="maths", packages="six\nsixx"), reason=None)


def test_each_server_has_its_own(attempts: FailedAttempts) -> None:
    user, other = User(), User()
    attempts.note(user, "", OPTIONS, ERROR)
    assert attempts.last(user, "lab") is None
    assert attempts.last(other, "") is None


def test_a_start_that_works_is_the_end_of_it(attempts: FailedAttempts) -> None:
    user = User()
    attempts.note(user, "", OPTIONS, ERROR)
    attempts.note(user, "lab", OPTIONS, ERROR)
    attempts.forget(user, "")
    attempts.forget(User(), "")
    assert attempts.last(user, "") is None
    assert attempts.last(user, "lab") is not None


def test_a_later_failure_replaces_the_one_before(attempts: FailedAttempts) -> None:
    user = User()
    attempts.note(user, "", OPTIONS, ERROR)
    attempts.note(user, "", {"image": "x"}, MalformedRequest("'x' is no image.", about="image"))
    last = attempts.last(user, "")
    assert last is not None
    assert last.entries == Entries(image="x")
    assert last.reason == Reason(message="'x' is no image.", about="image")


def test_nobody_can_make_it_remember_many_servers(attempts: FailedAttempts) -> None:
    user = User()
    for number in range(100):
        attempts.note(user, f"server{number}", OPTIONS, PolicyRefusal("No."))
    kept = [number for number in range(100) if attempts.last(user, f"server{number}")]
    assert kept == list(range(80, 100))


def test_nothing_is_left_of_a_user_who_has_gone(attempts: FailedAttempts) -> None:
    """A name that is given again finds nothing of the former user's."""
    user = User()
    attempts.note(user, "", OPTIONS, ERROR)
    gone = weakref.ref(user)
    del user
    gc.collect()
    assert gone() is None
