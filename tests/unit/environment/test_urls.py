"""URLs without what must not be kept."""

from __future__ import annotations

import pytest

from prebuilt_spawner.environment.urls import canonical_index_url, public_index_url, without_credentials


@pytest.mark.parametrize(
    "url",
    [
        "https://index.example.org/simple/",
        "https://me:s3cret@index.example.org/simple",
        "HTTPS://Index.Example.org:443/simple?token=T",
        "https://index.example.org/simple/?token=other#x",
        "corp=https://me:s3cret@index.example.org/simple/",
    ],
)
def test_an_index_has_one_spelling_without_names_and_secrets(url: str) -> None:
    assert canonical_index_url(url) == "https://index.example.org/simple"


def test_a_public_url_is_that_of_the_index_as_it_was_written() -> None:
    assert public_index_url("https://me:s3cret@Index.example.org:8443/simple/?token=T#x") == (
        "https://Index.example.org:8443/simple/"
    )


def test_a_wheels_url_keeps_its_query() -> None:
    """There are servers that find the file by it."""
    assert without_credentials("https://me:s3@cret@h.example.org/f.whl?id=7#x") == "https://h.example.org/f.whl?id=7#x"
