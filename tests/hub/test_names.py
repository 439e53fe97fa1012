"""Which images a user can start by name: the bases that are allowed to them, and nothing else."""

from __future__ import annotations

import pytest

from .doubles import REPOSITORY, Hub

DIGEST = "a" * 64
SPELLINGS = {
    "tag": f"{REPOSITORY}:{DIGEST}",
    "no tag": REPOSITORY,
    "tag of a hold": f"{REPOSITORY}:hold-0123456789abcdef-01234567-01234567",
    "digest": f"{REPOSITORY}@sha256:{DIGEST}",
    "tag and digest": f"{REPOSITORY}:{DIGEST}@sha256:{DIGEST}",
    "registry": f"docker.io/{REPOSITORY}:{DIGEST}",
    "registry in capitals": f"Docker.IO/{REPOSITORY}:{DIGEST}",
    "registry with a port": f"docker.io:443/{REPOSITORY}:{DIGEST}",
    "other names of the registry": f"registry-1.docker.io/{REPOSITORY}:{DIGEST}",
    "index": f"index.docker.io/{REPOSITORY}@sha256:{DIGEST}",
    "trailing space": f"{REPOSITORY}:{DIGEST} ",
    "leading space": f" {REPOSITORY}:{DIGEST}",
    "newline": f"{REPOSITORY}:{DIGEST}\n",
    "nul": f"{REPOSITORY}:{DIGEST}\0",
    "capitals": f"Prebuilt-Spawner/env:{DIGEST}",
    "all capitals": f"{REPOSITORY}:{DIGEST}".upper(),
    "dots": f"./{REPOSITORY}:{DIGEST}",
    "parent": f"x/../{REPOSITORY}:{DIGEST}",
    "double slash": f"prebuilt-spawner//env:{DIGEST}",
    "slash at the end": f"{REPOSITORY}/",
    "host with a dot at the end": f"docker.io./{REPOSITORY}:{DIGEST}",
    "scheme": f"https://docker.io/{REPOSITORY}:{DIGEST}",
    "user": f"x@docker.io/{REPOSITORY}:{DIGEST}",
    "escape": f"prebuilt-spawner%2fenv:{DIGEST}",
    "other letters": f"prebuilt-spawner/\u0435nv:{DIGEST}",
}
NOT_OURS = {"capitals", "all capitals", "escape", "other letters"}
"""Refused too, but as what is no name of an image, or of one on another host."""


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_of_a_prepared_image_is_a_base(hub: Hub, spelling: str) -> None:
    """Where all images are allowed; nothing is asked of the build manager or pulled, and nothing is stored."""
    hub.configure(allowed_images="*")
    answer = await hub.start("ada", {"image": SPELLINGS[spelling]})
    if answer.status == 201:
        # A host of that name: another registry's image, which is no more than the administrator allowed.
        assert spelling == "capitals"
        return
    assert answer.status == 400, answer.text
    assert hub.manager.requests == []
    assert hub.docker.pulled == []
    assert hub.stored("ada") in ({}, None)


@pytest.mark.parametrize(
    "name",
    [
        f"registry.test/{REPOSITORY}:{DIGEST}",
        f"registry.test:443/{REPOSITORY}:{DIGEST}",
        f"REGISTRY.test/{REPOSITORY}@sha256:{DIGEST}",
        f"registry.test/{REPOSITORY}",
        f"{REPOSITORY}:{DIGEST}",
    ],
)
async def test_with_a_registry_its_repository_has_no_bases_either(hub: Hub, name: str) -> None:
    """Nor has the one of the same name without it, where images from before are."""
    hub.configure(allowed_images="*", registry="registry.test")
    answer = await hub.start("ada", {"image": name})
    assert answer.status == 400, answer.text
    assert hub.manager.requests == []
    assert hub.docker.pulled == []


async def test_with_a_registry_its_other_repositories_have_bases(hub: Hub) -> None:
    """Which are named so, and pulled as others are."""
    hub.configure(allowed_images="*", registry="registry.test")
    await hub.start("ada", {"image": "registry.test/bases/jupyter:1"})
    assert [request.base for request in hub.manager.requests] == ["registry.test/bases/jupyter:1"]


@pytest.mark.parametrize("options", [{}, {"image": "Old"}])
async def test_a_base_that_is_not_allowed_any_more_is_not_started_again(hub: Hub, options: dict) -> None:
    """Not from stored options, not from what was chosen lately, and not in the container that was made of it."""
    allowed = {"Old": "example/old:1", "New": "example/new:1"}
    hub.configure(allowed_images=allowed, image="example/new:1")
    assert (await hub.start("ada", {"image": "Old", "packages": ["six"]})).status == 201
    await hub.stop("ada")
    container = hub.container("ada")
    hub.configure(allowed_images={"New": "example/new:1"})
    hub.manager.recent_choices = [{"image": "Old", "packages": ["six"]}, {"image": "New", "packages": ["attrs"]}]
    assert (await hub.start("ada", options)).status == 400
    assert not container["State"]["Running"]
    assert len(hub.manager.requests) == 1
    page = await (await hub.log_in("ada")).get("/spawn")
    assert "attrs on New" in page.text
    assert "six on Old" not in page.text


async def test_what_one_user_may_choose_another_may_not(hub: Hub) -> None:
    """`allowed_images` may be a function: it is asked for the user whose server starts, whoever asks."""
    hub.configure(allowed_images=lambda spawner: {"Big": "example/big:1"} if spawner.user.name == "ada" else {})
    assert (await hub.start("ada", {"image": "Big"})).status == 201
    assert (await hub.start("bob", {"image": "Big"})).status == 400
    assert [request.user for request in hub.manager.requests] == ["ada"]
