"""Failures that are remembered."""

from __future__ import annotations

import pytest

from prebuilt_spawner.build import remembered
from prebuilt_spawner.build.remembered import RememberedFailures
from prebuilt_spawner.errors import EngineFailure, QueueFull, UnresolvableRequest


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_requests_own_failure_is_raised_again_until_its_time_is_up(clock: Clock) -> None:
    failures = RememberedFailures(10, now=clock)
    error = UnresolvableRequest("pandsa is not there.", detail="all of it", about="packages", entry="pandsa")
    failures.remember("key", error)
    clock.seconds += 9.9
    with pytest.raises(UnresolvableRequest, match="pandsa") as caught:
        failures.check("key")
    assert caught.value is not error
    assert (caught.value.detail, caught.value.status) == ("all of it", 422)
    assert (caught.value.about, caught.value.entry) == ("packages", "pandsa")
    failures.check("other")
    clock.seconds += 0.1
    failures.check("key")


@pytest.mark.parametrize("error", [EngineFailure("down"), QueueFull("full"), ValueError("ours")])
def test_what_may_work_in_a_moment_is_not_remembered(clock: Clock, error: Exception) -> None:
    failures = RememberedFailures(10, now=clock)
    failures.remember("key", error)
    failures.check("key")


def test_what_is_forgotten_is_tried_again(clock: Clock) -> None:
    failures = RememberedFailures(10, now=clock)
    failures.remember("key", UnresolvableRequest("no"))
    failures.forget("key")
    failures.forget("key")
    failures.check("key")


def test_a_time_of_zero_remembers_nothing(clock: Clock) -> None:
    failures = RememberedFailures(0, now=clock)
    failures.remember("key", UnresolvableRequest("no"))
    failures.check("key")


def test_the_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first."""
    monkeypatch.setattr(remembered, "_MOST", 2)
    failures = RememberedFailures(10, now=clock)
    for key in "abc":
        failures.remember(key, UnresolvableRequest(key))
    failures.check("a")
    for key in "bc":
        with pytest.raises(UnresolvableRequest):
            failures.check(key)
