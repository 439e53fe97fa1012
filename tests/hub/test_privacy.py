"""What one user sees of another: nothing of what they asked for, and nothing of what their build says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from jupyterhub import roles

from prebuilt_spawner.build.events import BuildEvent, Phase
from prebuilt_spawner.build.preview import Preview, Readiness
from prebuilt_spawner.errors import UnresolvableRequest

from .doubles import Browser, Hub

SECRETS = ("secret-package", "secret-words", "secret-output", "secret-summary", "secret-failure")
LOOKS = [
    ("GET", "/users/ada"),
    ("GET", "/users/ada?include_stopped_servers=1"),
    ("GET", "/users/ada/server/progress"),
    ("GET", "/users/ada/servers/lab/progress"),
    ("POST", "/users/ada/server"),
    ("DELETE", "/users/ada/server"),
    ("GET", "/users"),
]
PAGES = ["/spawn/ada", "/spawn/ada/lab", "/spawn-pending/ada", "/spawn-pending/ada/lab", "/home", "/spawn", "/admin"]


async def token_of(hub: Hub, user: str) -> str:
    """One with all that the user may do."""
    await hub.call("POST", f"/users/{user}")
    return str(hub.app.users[user].new_api_token())


async def administrator(hub: Hub) -> Browser:
    """One's browser."""
    browser = await hub.log_in("chief")
    chief = hub.app.users["chief"].orm_user
    chief.admin = True
    roles.assign_default_roles(hub.app.db, entity=chief)
    hub.app.db.commit()
    return browser


@pytest.fixture
async def building(hub: Hub) -> AsyncIterator[Hub]:
    """Ada waits for two servers; one more has failed."""
    hub.manager.error = UnresolvableRequest("secret-failure cannot be installed. Leave it out.")
    assert (await hub.start("ada", {"packages": ["secret-package"]}, server="failed")).status == 422
    hub.manager.error = None
    hub.manager.gate = asyncio.Event()
    hub.manager.events = [
        BuildEvent(phase=Phase.RESOLVING, message="secret-words", summary="secret-summary"),
        BuildEvent(phase=Phase.PREPARING, message="Preparing", output="secret-output\n"),
    ]
    starts = [
        asyncio.create_task(hub.start("ada", {"packages": ["secret-package"]}, server=server)) for server in ("", "lab")
    ]
    while len(hub.manager.requests) < 3:
        await asyncio.sleep(0.01)
    yield hub
    hub.manager.gate.set()
    await asyncio.gather(*starts)


def nothing_of_ada(text: str) -> bool:
    return not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize(("method", "path"), LOOKS)
async def test_a_users_token_opens_nothing_of_anothers(building: Hub, method: str, path: str) -> None:
    """Neither the options, nor the progress, nor a start or stop in their name."""
    bob = await token_of(building, "bob")
    answer = await building.call(method, path, {} if method == "POST" else None, token=bob)
    assert answer.status in (403, 404), answer.text
    assert nothing_of_ada(answer.text)
    assert len(building.manager.requests) == 3


@pytest.mark.parametrize("page", PAGES)
async def test_a_users_browser_shows_nothing_of_anothers(building: Hub, page: str) -> None:
    """Neither the form, nor the page of a pending start, nor the progress that it reads."""
    bob = await building.log_in("bob")
    for path in (page, f"{page}?next=/x"):
        assert nothing_of_ada((await bob.get(path)).text)
    answer = await bob.get("/api/users/ada/server/progress")
    assert answer.status in (403, 404)
    assert nothing_of_ada(answer.text)


async def test_a_user_sees_their_own(building: Hub) -> None:
    """So the tests above look where there is something."""
    ada = await token_of(building, "ada")
    model = await building.call("GET", "/users/ada?include_stopped_servers=1", token=ada)
    assert "secret-package" in model.text
    building.manager.gate.set()  # type: ignore[union-attr]
    progress = await building.call("GET", "/users/ada/server/progress", token=ada)
    assert "secret-words" in progress.text
    assert "secret-output" in progress.text


async def test_an_administrator_sees_it(building: Hub) -> None:
    """With a token that has the scopes, and in a browser."""
    model = await building.call("GET", "/users/ada?include_stopped_servers=1")
    assert "secret-package" in model.text
    chief = await administrator(building)
    form = await chief.get("/spawn/ada/failed")
    assert "secret-package" in form.text
    assert "secret-failure" in form.text
    building.manager.gate.set()  # type: ignore[union-attr]
    progress = await building.call("GET", "/users/ada/server/progress")
    assert "secret-words" in progress.text


async def test_the_form_offers_a_user_only_what_they_chose_themselves(hub: Hub) -> None:
    """The build manager is asked for the choices of the user whose form it is, also where an administrator opens it."""
    await hub.call("POST", "/users/ada")
    chief = await administrator(hub)
    await (await hub.log_in("bob")).get("/spawn")
    await chief.get("/spawn")
    await chief.get("/spawn/ada")
    assert [user for user, _ in hub.manager.asked_recent] == ["bob", "chief", "ada"]


async def test_who_asks_for_the_same_sees_the_same_environment_and_not_who_built_it(hub: Hub) -> None:
    """A preview says that an environment is ready, and nothing of whose it was."""
    hub.manager.previews[("six",)] = Preview(readiness=Readiness.READY)
    await hub.start("adalovelace", {"packages": ["six"]})
    await hub.start("bob", {"packages": ["six"]})
    await hub.stop("bob")
    page = await (await hub.log_in("bob")).get("/spawn")
    assert "six" in page.text
    assert "adalovelace" not in page.text
