"""Parsing requirements from many threads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from packaging.requirements import InvalidRequirement

from prebuilt_spawner.environment.parsing import parsed_requirement


@pytest.fixture
def busy_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_many_threads_can_parse_at_once(busy_threads: None):
    """On Python 3.11 `packaging` alone raises a SystemError now and then."""
    texts = [f'package{number}; python_version < "3.{number}"' for number in range(2000)]
    with ThreadPoolExecutor(8) as threads:
        assert [found.name for found in threads.map(parsed_requirement, texts)] == [
            f"package{number}" for number in range(2000)
        ]


def test_what_was_parsed_is_not_parsed_again(monkeypatch: pytest.MonkeyPatch):
    """Also not for the caller's own copy."""
    text = "parsed-once[a,b]>=1.5; python_version < '3.9'"
    first = parsed_requirement(text)
    monkeypatch.setattr("packaging.requirements._parse_requirement", None)
    second = parsed_requirement(text)
    assert second is not first
    assert (second.name, second.url, second.extras) == ("parsed-once", None, {"a", "b"})
    assert (second.specifier, second.marker) == (first.specifier, first.marker)


def test_what_one_caller_changes_no_other_sees():
    first = parsed_requirement("pandas[excel]>=2")
    first.extras = set()
    first.url = "https://example.org/pandas"
    second = parsed_requirement("pandas[excel]>=2")
    assert second.extras == {"excel"}
    assert second.url is None


def test_what_is_no_requirement_is_refused_each_time():
    for _ in range(2):
        with pytest.raises(InvalidRequirement):
            parsed_requirement("not a requirement")
