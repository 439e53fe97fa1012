"""What misspelt package names meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from prebuilt_spawner.environment.names import MEANT, edits, meant_by, popular_names, suggestion


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("pandsa", "pandas"),
        ("Pandass", "pandas"),
        ("nump", "numpy"),
        ("scikitlearn", "scikit-learn"),
        ("scikit_lern", "scikit-learn"),
        ("matplotlb", "matplotlib"),
        ("sklearn", "scikit-learn"),
        ("cv2", "opencv-python"),
        ("PIL", "pillow"),
        ("yaml", "pyyaml"),
        ("bs4", "beautifulsoup4"),
        ("docx", "python-docx"),
        ("dask", "dash"),
        ("entirely-unknown-thing", ""),
        ("xq", ""),
        ("", ""),
        ("pandas" * 1000, ""),
    ],
)
def test_the_nearest_known_name_is_suggested_and_never_the_asked_one(asked: str, meant: str) -> None:
    assert suggestion(asked) == meant


def test_seen_names_are_suggested_where_no_popular_one_is_as_near() -> None:
    """So nobody can have a name of their own suggested for a popular one by asking for it first."""
    assert suggestion("house-tols", ["house-tools"]) == "house-tools"
    assert suggestion("pandsa", ["pandsb"]) == "pandas"
    assert suggestion("house-tols", ["other"]) == ""


def test_only_names_with_a_meaning_of_their_own_have_one() -> None:
    assert meant_by("sklearn") == "scikit-learn"
    assert meant_by("pandas") == ""


def test_the_lists_hold_normalised_names_and_no_name_means_itself() -> None:
    listed = {*popular_names(), *MEANT, *MEANT.values()}
    assert len(popular_names()) > 300
    assert {name for name in listed if canonicalize_name(name, validate=True) != name} == set()
    assert not popular_names() & MEANT.keys()


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("pandas", "pandas", 0), ("pandsa", "pandas", 1), ("pnda", "pandas", 2), ("", "ab", 2), ("abc", "xyz", 3)],
)
def test_edits_are_letters_added_left_out_changed_or_swapped(one: str, other: str, distance: int) -> None:
    assert edits(one, other, limit=9) == distance


@given(one=st.text("abc-", max_size=12), other=st.text("abc-", max_size=12), limit=st.integers(0, 4))
def test_a_limit_changes_no_distance_within_it(one: str, other: str, limit: int) -> None:
    whole = edits(one, other, limit=99)
    assert whole == edits(other, one, limit=99)
    bounded = edits(one, other, limit=limit)
    assert bounded == whole if whole <= limit else bounded > limit
