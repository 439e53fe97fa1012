"""Tests of `prebuilt_spawner.environment.reference`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilt_spawner.environment.reference import (
    Reference,
    environment_reference,
    is_in_repository,
    parse_reference,
)
from prebuilt_spawner.errors import MalformedRequest

HEX = "0123456789abcdef" * 4
REPOSITORY = "prebuilt-spawner/env"


def test_an_environment_is_named_by_repository_and_digest():
    """With the registry before it where there is one."""
    assert environment_reference(REPOSITORY, HEX) == f"prebuilt-spawner/env:{HEX}"
    assert (
        environment_reference(REPOSITORY, HEX, "host.example:5000") == f"host.example:5000/prebuilt-spawner/env:{HEX}"
    )


@pytest.mark.parametrize("digest", ["", "latest", HEX[:-1], HEX.upper(), f"sha256:{HEX}", HEX + "\n"])
def test_only_a_whole_digest_names_an_environment(digest):
    """A shortened one would name others as well."""
    with pytest.raises(ValueError, match="digest"):
        environment_reference(REPOSITORY, digest)


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("debian", "docker.io", "library/debian", "", ""),
        ("debian:12", "docker.io", "library/debian", "12", ""),
        ("group/name:v1.0_x-y", "docker.io", "group/name", "v1.0_x-y", ""),
        ("docker.io/debian", "docker.io", "library/debian", "", ""),
        ("index.docker.io/library/debian", "docker.io", "library/debian", "", ""),
        ("localhost/name", "localhost", "name", "", ""),
        ("localhost:5000/name", "localhost:5000", "name", "", ""),
        ("host:5000/name", "host:5000", "name", "", ""),
        ("HOST.Example:5000/a/b/c:t", "host.example:5000", "a/b/c", "t", ""),
        ("host:5000", "docker.io", "library/host", "5000", ""),
        ("Host/name", "Host", "name", "", ""),
        ("[::1]:5000/name:t", "[::1]:5000", "name", "t", ""),
        (f"name@sha256:{HEX}", "docker.io", "library/name", "", f"sha256:{HEX}"),
        (f"host:5000/a/b:t@sha256:{HEX}", "host:5000", "a/b", "t", f"sha256:{HEX}"),
        ("a__b/c.d-e--f", "docker.io", "a__b/c.d-e--f", "", ""),
        (f"{REPOSITORY}:{HEX}", "docker.io", REPOSITORY, HEX, ""),
    ],
)
def test_a_reference_is_read_as_docker_reads_it(text, registry, repository, tag, digest):
    """Registry, repository, tag and digest, with Docker's defaults."""
    reference = parse_reference(text)
    assert reference == Reference(registry=registry, repository=repository, tag=tag, digest=digest)
    assert parse_reference(str(reference)).repository == repository
    assert str(parse_reference(str(reference))) == str(reference)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "name ",
        "name:",
        ":tag",
        "name@",
        "name@sha256:abc",
        f"name@{HEX}",
        f"name@sha256:{HEX}@sha256:{HEX}",
        "Name",
        "group/Name",
        "host:port/name",
        "host:5000/",
        "/name",
        "a//b",
        "-name",
        "name-",
        "a..b/c",
        "a___b",
        "name:" + "t" * 129,
        "name:.t",
        "name:tag:tag",
        "https://host/name",
        "name\n",
        "name\x00",
        "näme",
        "x/" * 200 + "y",
        "a" * 256,
        "x" * 1_000_000,
        HEX,
        f"sha256:{HEX}",
        "-v/:/x",
        "../x",
        "${X}",
    ],
)
def test_what_is_no_reference_is_refused(text):
    """The message names it, shortened."""
    with pytest.raises(MalformedRequest) as caught:
        parse_reference(text)
    assert len(caught.value.message) < 250
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        REPOSITORY,
        f"{REPOSITORY}:{HEX}",
        f"{REPOSITORY}:latest",
        f"{REPOSITORY}@sha256:{HEX}",
        f"{REPOSITORY}:x@sha256:{HEX}",
        f"docker.io/{REPOSITORY}:{HEX}",
        f"Docker.IO/{REPOSITORY}:{HEX}",
        f"index.docker.io/{REPOSITORY}:{HEX}",
        f"registry-1.docker.io/{REPOSITORY}",
        f"docker.io:443/{REPOSITORY}",
    ],
)
def test_every_spelling_of_our_repository_is_recognised(text):
    """Nobody gets another user's image by writing its name another way."""
    assert is_in_repository(text, REPOSITORY)
    assert is_in_repository(text, REPOSITORY, "host.example:5000")


@pytest.mark.parametrize(
    "text",
    [
        f"host.example:5000/{REPOSITORY}:{HEX}",
        f"HOST.Example:5000/{REPOSITORY}",
        f"host.example:5000/{REPOSITORY}@sha256:{HEX}",
    ],
)
def test_with_a_registry_both_places_are_ours(text):
    """Its repository, and the one of the same name from before there was a registry."""
    assert is_in_repository(text, REPOSITORY, "host.example:5000")
    assert is_in_repository(text, REPOSITORY, "Host.example:5000/")
    assert not is_in_repository(text, REPOSITORY)


def test_a_repository_of_one_word_is_recognised_below_library():
    """`env` is `library/env`."""
    for text in ("env", "library/env:x", "docker.io/library/env", "docker.io/env"):
        assert is_in_repository(text, "env")


@pytest.mark.parametrize(
    "text",
    [
        "debian",
        "prebuilt-spawner/environment",
        "prebuilt-spawner/env/more",
        "more/prebuilt-spawner/env",
        f"other.example/{REPOSITORY}",
        f"sha256:{HEX}",
        HEX,
    ],
)
def test_other_names_are_not_in_our_repository(text):
    """Image IDs are no names; the engine looks at what is behind them."""
    assert not is_in_repository(text, REPOSITORY)


@given(st.text(st.sampled_from("abAB01.-_:/@[]"), max_size=30))
def test_any_text_is_a_reference_or_refused(text):
    """And what is read is written so that it is read as the same again."""
    try:
        reference = parse_reference(text)
    except MalformedRequest:
        return
    assert parse_reference(str(reference)) in (
        reference,
        Reference(registry=reference.registry, repository=reference.repository, tag="latest"),
    )
