"""The form, and links to it."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest

from prebuilt_spawner.hub.entries import entries_from_options, entries_from_query
from prebuilt_spawner.hub.form import options_from_form

from .doubles import Hub, field_value, input_values

PROFILES = [
    {"display_name": "Plain & simple", "slug": "plain", "description": "<i>Nothing</i> added"},
    {"display_name": "Maths", "slug": "maths", "packages": ["numpy"], "default": True},
]


async def test_the_form_starts_what_was_entered(hub: Hub) -> None:
    hub.configure(profile_list=PROFILES, allowed_images=["example/a:1", "example/b:1"])
    browser = await hub.log_in("ada")
    page = await browser.get("/spawn")
    assert page.status == 200
    assert input_values(page.text, "profile") == ["maths", "plain"]
    assert input_values(page.text, "profile", checked=True) == ["maths"]
    assert "Plain &amp; simple" in page.text
    assert "<i>Nothing</i>" not in page.text
    fields = {"profile": "plain", "packages": "six\nattrs", "image": "example/b:1", "refresh": "on"}
    answer = await browser.post("/spawn", fields)
    assert answer.status == 302, answer.text
    (request,) = hub.manager.requests
    assert (request.profile.slug, request.requirements) == ("plain", ("attrs", "six"))
    assert (request.base, request.refresh) == ("example/b:1", True)


async def test_an_empty_form_starts_the_default(hub: Hub) -> None:
    """Empty fields are no options."""
    browser = await hub.log_in("ada")
    await browser.get("/spawn")
    answer = await browser.post("/spawn", {"packages": " \n", "image": ""})
    assert answer.status == 302
    assert hub.stored("ada") == {}


@pytest.mark.parametrize("profiles", [[], PROFILES[:1]])
async def test_there_is_no_form_where_nothing_can_be_chosen(hub: Hub, profiles: list) -> None:
    """Whoever asks for the form gets the server at once."""
    hub.configure(allow_custom_packages=False, profile_list=profiles)
    browser = await hub.log_in("ada")
    page = await browser.get("/spawn", follow=False)
    assert page.status == 302
    (request,) = hub.manager.requests
    assert request.requirements == ()


async def test_a_link_starts_nothing_where_nothing_can_be_chosen(hub: Hub) -> None:
    hub.configure(allow_custom_packages=False)
    browser = await hub.log_in("ada")
    page = await browser.get("/spawn?opt-packages=six")
    assert page.status == 200
    assert "nothing to choose" in page.text
    assert 'id="prebuilt-packages"' not in page.text
    assert hub.manager.requests == []


async def test_options_of_former_times_can_be_got_rid_of(hub: Hub) -> None:
    """Where nothing can be chosen any more, stored packages would be refused at each start."""
    await hub.start("ada", {"packages": ["six"]})
    await hub.stop("ada")
    hub.manager.requests.clear()
    hub.configure(allow_custom_packages=False)
    browser = await hub.log_in("ada")
    page = await browser.get("/spawn")
    assert "nothing to choose" in page.text
    assert (await browser.post("/spawn", {})).status == 302
    (request,) = hub.manager.requests
    assert request.requirements == ()
    assert hub.stored("ada") == {}


@pytest.mark.parametrize("prefix", ["", "opt-"])
async def test_a_link_fills_in_the_form_and_starts_nothing(hub: Hub, prefix: str) -> None:
    """Any page can make a logged-in browser follow one."""
    browser = await hub.log_in("ada")
    page = await browser.get(f"/spawn?{prefix}packages=six%3E1%0Aevil%3C/textarea%3E&{prefix}image=x")
    assert page.status == 200
    assert field_value(page.text, "packages") == "six>1\nevil</textarea>"
    assert "evil</textarea>" not in page.text
    assert "Look at it" in page.text
    assert "spawn-error-msg" not in page.text
    assert hub.manager.requests == []
    assert hub.docker.containers == {}
    answer = await browser.post("/spawn", {"packages": "six"})
    assert answer.status == 302
    assert hub.manager.requests[0].requirements == ("six",)


@pytest.mark.parametrize("query", ["packages=six", "opt-packages=six", "unknown=1", "profile=maths", "refresh=true"])
async def test_a_link_never_starts_stored_options_where_the_form_is_switched_off(hub: Hub, query: str) -> None:
    hub.configure(options_form="")
    await hub.start("ada", {"packages": ["attrs"]})
    await hub.stop("ada")
    hub.manager.requests.clear()
    browser = await hub.log_in("ada")
    answer = await browser.get(f"/spawn?{query}")
    assert answer.status == 403
    assert hub.manager.requests == []
    assert hub.stored("ada") == {"packages": ["attrs"]}


async def test_the_form_shows_the_stored_options(hub: Hub) -> None:
    hub.configure(profile_list=PROFILES)
    await hub.start("ada", {"profile": "plain", "packages": ["six", "attrs"], "refresh": True})
    await hub.stop("ada")
    browser = await hub.log_in("ada")
    page = await browser.get("/spawn")
    assert field_value(page.text, "packages") == "six\nattrs"
    assert input_values(page.text, "profile", checked=True) == ["plain"]
    assert len(input_values(page.text, "refresh")) == 1
    assert input_values(page.text, "refresh", checked=True) == []


async def test_a_refused_form_keeps_its_text_for_named_servers_too(hub: Hub) -> None:
    """JupyterHub renders it again for the default server, whichever server was asked for."""
    browser = await hub.log_in("ada")
    await browser.get("/spawn/ada/lab")
    answer = await browser.post("/spawn/ada/lab", {"packages": "../x"})
    assert answer.status == 400
    assert field_value(answer.text, "packages") == "../x"
    again = await browser.get("/spawn/ada/lab")
    assert field_value(again.text, "packages") == "../x"
    assert "is a file or a folder" in again.text
    other = await browser.get("/spawn/ada")
    assert field_value(other.text, "packages") == ""


async def test_what_one_user_entered_is_not_shown_to_another(hub: Hub) -> None:
    ada, bob = await hub.log_in("ada"), await hub.log_in("bob")
    await ada.get("/spawn")
    await ada.post("/spawn", {"packages": "../secret"})
    page = await bob.get("/spawn")
    assert "secret" not in page.text


async def test_an_unknown_field_is_refused(hub: Hub) -> None:
    browser = await hub.log_in("ada")
    await browser.get("/spawn")
    answer = await browser.post("/spawn", {"cmd": "rm"})
    assert answer.status == 400
    assert hub.manager.requests == []


def in_a_request(form: dict[str, list[str]]) -> dict[str, Any]:
    """What a form's fields stand for, read in a context of its own as JupyterHub does: the tests after it have none."""
    return contextvars.copy_context().run(options_from_form, form)


def test_a_field_that_is_posted_twice_is_refused_later() -> None:
    """It stays a list, which is no form of the option."""
    assert in_a_request({"profile": ["a", "b"]}) == {"profile": ["a", "b"]}


def test_the_page_token_is_no_option() -> None:
    assert in_a_request({"_xsrf": ["x"], "refresh": ["on"]}) == {"refresh": True}


@pytest.mark.parametrize("options", [{}, {"packages": 5}, {"packages": [1, None]}, {"profile": [], "image": {}}])
def test_any_stored_options_can_be_shown(options: dict) -> None:
    assert entries_from_options(options).packages == ""


def test_a_link_cannot_ask_for_newer_versions() -> None:
    entries = entries_from_query({"packages": [b"six", b"\xff"], "refresh": [b"true"]})
    assert entries is not None
    assert not entries.refresh
    assert entries_from_query({"next": [b"/hub/home"], "refresh": [b"on"]}) is None
