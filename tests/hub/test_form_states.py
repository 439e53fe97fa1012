"""What the form says of each choice, and what becomes of entries that can no longer be chosen."""

from __future__ import annotations

import asyncio
import html
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest

from prebuilt_spawner.build.preview import Preview, Readiness
from prebuilt_spawner.errors import EngineUnavailable, PolicyRefusal, StorageFailure, UnresolvableRequest
from prebuilt_spawner.hub import offers

from .doubles import ADMIN_TOKEN, Hub, field_value, input_values

READY = Preview(readiness=Readiness.READY, packages=("numpy==2.0",))
PROFILES: list[dict[str, Any]] = [
    {"display_name": "Ready", "slug": "ready", "packages": ["numpy"]},
    {"display_name": "Long", "slug": "long", "packages": [f"package-{number}" for number in range(10, 18)]},
    {"display_name": "Crowded", "slug": "crowded", "packages": ["scipy"], "allow_extra_packages": False},
    {"display_name": "Broken", "slug": "broken", "packages": ["nunpy"]},
]
PREVIEWS = {
    ("numpy",): READY,
    tuple(f"package-{number}" for number in range(10, 18)): Preview(readiness=Readiness.UNBUILT, seconds=19.6),
    ("scipy",): Preview(readiness=Readiness.BUILDING, waiting=3),
    ("nunpy",): Preview(readiness=Readiness.FAILED, error="No package is called nunpy."),
}


def card(page: str, name: str) -> str:
    """What the card of a profile says, without markup."""
    found = [part for part in page.split('<div class="card mb-2')[1:] if f">{name}<" in part]
    assert len(found) == 1, name
    return words(found[0].partition("</fieldset>")[0])


def words(markup: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", markup)).split())


def outlook(page: str) -> str:
    """What the page says that pressing Start will do."""
    found = re.search(r'id="prebuilt-outlook"[^>]*>(.*?)</p>', page, re.DOTALL)
    assert found is not None, page
    return html.unescape(found[1])


def recent(page: str) -> dict[str, dict[str, list[str]]]:
    """The queries of the links to what was used lately, by title."""
    found = re.findall(r'<a href="\?([^"]*)" data-known="\d+">(.*?)</a>', page)
    return {html.unescape(title): parse_qs(html.unescape(query)) for query, title in found}


def data(page: str) -> Any:
    """What the page's script is given."""
    found = re.search(r'<script type="application/json" id="prebuilt-spawner-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None, page
    return json.loads(found[1])


async def form(hub: Hub, user: str = "ada", path: str = "/spawn") -> str:
    """The page with the form."""
    answer = await (await hub.log_in(user)).get(path)
    assert answer.status == 200, answer.text
    return answer.text


# -- states ------------------------------------------------------------------------------------------------------------


async def test_each_profile_says_what_there_is_of_it(hub: Hub) -> None:
    hub.configure(profile_list=PROFILES)
    hub.manager.previews = PREVIEWS
    page = await form(hub)
    assert "Ready Ready numpy" in card(page, "Ready")
    assert "Builds in about 20 s" in card(page, "Long")
    assert "package-14, package-15 and 2 more" in card(page, "Long")
    assert "Building, 3 people waiting" in card(page, "Crowded")
    assert "Failed on its last build" in card(page, "Broken")
    assert outlook(page) == "Starts at once."


@pytest.mark.parametrize(("waiting", "said"), [(0, "Building"), (1, "Building, 1 person waiting")])
async def test_one_who_waits_is_one_person(hub: Hub, waiting: int, said: str) -> None:
    hub.configure(profile_list=PROFILES)
    hub.manager.previews = {("scipy",): Preview(readiness=Readiness.BUILDING, waiting=waiting)}
    assert f"Crowded {said} scipy" in card(await form(hub), "Crowded")


async def test_base_images_have_the_names_that_people_know(hub: Hub) -> None:
    """The key in `allowed_images`, else the end of the reference; nothing where all profiles have the same."""
    keys = {"R notebook": "example.org/deep/r-notebook:2"}
    profiles = [
        {"display_name": "R", "image": "example.org/deep/r-notebook:2"},
        {"display_name": "Other", "image": f"example.org:5000/deep/other@sha256:{'0' * 64}"},
        {"display_name": "Overridden", "spawner_override": {"image": "example/overridden:3"}},
        {"display_name": "Plain"},
    ]
    hub.configure(profile_list=profiles, allowed_images=keys)
    page = await form(hub)
    names = {name: card(page, name).partition("Base image: ")[2] for name in ("R", "Other", "Overridden", "Plain")}
    assert names == {"R": "R notebook", "Other": "other", "Overridden": "overridden:3", "Plain": "base:1"}
    hub.configure(profile_list=[profiles[3], {"display_name": "Same"}])
    assert "Base image:" not in await form(hub, "bob")


async def test_a_single_profile_is_shown_as_well(hub: Hub) -> None:
    """Nothing has to be chosen, but people see what their packages are added to."""
    hub.configure(profile_list=PROFILES[:1])
    hub.manager.previews = PREVIEWS
    page = await form(hub)
    assert 'type="radio"' not in page
    assert input_values(page, "profile") == ["ready"]
    shown = words(page[page.index('class="card prebuilt-profile"') :].partition("</section>")[0])
    assert "Ready Ready numpy" in shown


async def test_what_asks_for_newer_versions_does_not_start_at_once(hub: Hub) -> None:
    """An attempt that failed comes back with its checkbox and says so, a page with a script or not."""
    hub.manager.error = UnresolvableRequest("No package is called sixx.", package="sixx")
    browser = await hub.log_in("ada")
    await browser.get("/spawn")
    answer = await browser.post("/spawn", {"packages": "sixx", "refresh": "on"})
    assert len(input_values(answer.text, "refresh", checked=True)) == 1
    assert outlook(answer.text) == "Newer versions are looked for, and built first if there are any."


# -- the surroundings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [EngineUnavailable("The engine is away."), StorageFailure("The disk is full.")])
async def test_the_form_is_there_without_states_where_nobody_can_look(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It claims nothing, neither that something is ready nor that it must be built."""

    async def away(*args: Any, **more: Any) -> Any:
        raise error

    hub.configure(profile_list=PROFILES)
    monkeypatch.setattr(hub.spawner_class, "_new_manager", away)
    page = await form(hub)
    assert input_values(page, "profile") == [profile["slug"] for profile in PROFILES]
    assert "badge prebuilt-state" not in page
    assert outlook(page) == ""


@pytest.mark.parametrize("method", ["preview", "recent"])
async def test_the_form_does_not_wait_for_what_hangs(hub: Hub, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Neither for what is ready nor for what there was lately; the question is given up."""
    cancelled = asyncio.Event()

    async def hang(*args: Any, **more: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    hub.configure(profile_list=PROFILES)
    monkeypatch.setattr(offers, "_PREVIEW_SECONDS", 0.01)
    monkeypatch.setattr(hub.manager, method, hang)
    page = await form(hub)
    assert input_values(page, "profile") == [profile["slug"] for profile in PROFILES]
    assert cancelled.is_set()


# -- lately ------------------------------------------------------------------------------------------------------------


async def test_recent_choices_are_offered_as_links_that_fill_in_the_form(hub: Hub) -> None:
    """With what a start of each would do; what could not be started now is left out."""
    hub.configure(
        profile_list=PROFILES, denied_packages=["evil"], allowed_images={"A": "example/a:1", "B": "example/b:1"}
    )
    hub.manager.recent_choices = [
        {"profile": "ready", "packages": ["six>=1", "attrs", "d", "c", "b"]},
        {"profile": "gone"},
        {"packages": ["evil"]},
        {"profile": "crowded", "packages": ["six"]},
        {"profile": "ready", "image": "B"},
    ]
    hub.manager.previews = {("numpy",): READY}
    page = await form(hub)
    assert recent(page) == {
        "Ready with attrs, b, c, d and 1 more": {
            "opt-profile": ["ready"],
            "opt-packages": ["attrs\nb\nc\nd\nsix>=1"],
        },
        "Ready on B": {"opt-profile": ["ready"], "opt-image": ["B"]},
    }
    known = data(page)["known"][len(PROFILES) :]
    assert [one["outlook"] for one in known] == ["Builds first.", "Starts at once."]


async def test_recent_choices_are_those_since_the_user_was_made(hub: Hub) -> None:
    """A name that is given again shows nothing of its former bearer's."""
    await form(hub)
    ((user, since),) = hub.manager.asked_recent
    assert user == "ada"
    assert since is not None
    assert since.utcoffset() is not None


@pytest.mark.parametrize("path", ["/spawn", "/spawn/ada/lab", "/spawn/ada/lab?opt-packages=attrs"])
async def test_a_link_to_a_recent_choice_leads_on_to_where_the_user_was_going(hub: Hub, path: str) -> None:
    hub.manager.recent_choices = [{"packages": ["six"]}]
    way = urlencode({"next": "/hub/home?a=1&b=2", "display_name": "My lab"})
    page = await form(hub, path=f"{path}{'&' if '?' in path else '?'}{way}")
    (query,) = recent(page).values()
    assert query == {"opt-packages": ["six"], "next": ["/hub/home?a=1&b=2"], "display_name": ["My lab"]}


async def test_a_link_to_a_recent_choice_has_nothing_else_of_the_page_s_query(hub: Hub) -> None:
    hub.manager.recent_choices = [{"packages": ["six"]}]
    page = await form(hub, path="/spawn?opt-image=x&_xsrf=secret")
    (query,) = recent(page).values()
    assert query == {"opt-packages": ["six"]}


@pytest.mark.parametrize("user", ["ada@example.org", "ada lovelace", "a'b&<c>"])
async def test_names_that_need_escaping_have_a_form(hub: Hub, user: str) -> None:
    browser = await hub.log_in(user)
    answer = await browser.post("/spawn", {"packages": "../x"})
    assert field_value(answer.text, "packages") == "../x"


# -- entries that cannot be chosen any more ----------------------------------------------------------------------------


async def test_a_profile_that_has_gone_does_not_stand_in_the_way(hub: Hub) -> None:
    """Its slug is not sent again, which nobody could change where a single profile is left; the page says so."""
    hub.configure(profile_list=PROFILES)
    await hub.start("ada", {"profile": "long", "packages": ["six"]})
    await hub.stop("ada")
    hub.configure(profile_list=PROFILES[:1])
    hub.manager.previews = {("numpy", "six"): READY}
    page = await form(hub)
    assert input_values(page, "profile") == ["ready"]
    assert field_value(page, "packages") == "six"
    assert "Left out, because it cannot be chosen here: the environment 'long'." in words(page)
    assert outlook(page) == "Starts at once."


async def test_without_profiles_a_stored_one_is_left_out(hub: Hub) -> None:
    hub.configure(profile_list=PROFILES)
    await hub.start("ada", {"profile": "ready", "packages": ["six"]})
    await hub.stop("ada")
    hub.configure(profile_list=[])
    page = await form(hub)
    assert input_values(page, "profile") == []
    assert outlook(page) == "Builds first."


async def test_stored_packages_of_a_profile_that_takes_none_any_more_are_left_out(hub: Hub) -> None:
    """The box is hidden then, and without a script its text would be sent and refused."""
    hub.configure(profile_list=PROFILES)
    await hub.start("ada", {"profile": "ready", "packages": ["six"]})
    await hub.stop("ada")
    closed = [{**PROFILES[0], "allow_extra_packages": False}, *PROFILES[1:]]
    hub.configure(profile_list=closed)
    hub.manager.previews = PREVIEWS
    page = await form(hub)
    assert input_values(page, "profile", checked=True) == ["ready"]
    assert field_value(page, "packages") == ""
    assert "cannot be chosen here: the packages." in words(page)
    assert outlook(page) == "Starts at once."


async def test_a_stored_base_image_that_has_gone_is_left_out(hub: Hub) -> None:
    """A browser would show and send the first one instead, and say nothing."""
    hub.configure(allowed_images={"A": "example/a:1", "Base": "example/base:1", "C": "example/c:1"})
    await hub.start("ada", {"image": "C"})
    await hub.stop("ada")
    hub.configure(allowed_images={"A": "example/a:1", "Base": "example/base:1"})
    page = await form(hub)
    assert '<option value="Base" selected>' in page
    assert "the base image 'C'" in words(page)
    assert outlook(page) == "Builds first."


@pytest.mark.parametrize(
    ("images", "shown"),
    [
        ({"A": "example/a:1"}, ""),
        ({"A": "example/a:1", "B": "example/b:1"}, "select"),
        (lambda spawner: {"A": "example/a:1", "B": "example/b:1"}, "select"),
        ("*", "input"),
        ([], ""),
    ],
)
async def test_base_images_are_offered_in_all_of_dockerspawner_s_forms(hub: Hub, images: Any, shown: str) -> None:
    hub.configure(allowed_images=images)
    found = re.search(r'<(select|input)[^>]*name="image"', await form(hub))
    assert (found[1] if found else "") == shown


# -- reasons -----------------------------------------------------------------------------------------------------------


async def test_a_reason_about_something_that_the_form_does_not_show_is_said_at_its_top(hub: Hub) -> None:
    """Such as of packages that were sent by hand."""
    hub.configure(profile_list=PROFILES, allow_custom_packages=False)
    answer = await hub.start("ada", {"packages": ["six"]})
    assert answer.status == PolicyRefusal.status
    hub.manager.previews = PREVIEWS
    page = await form(hub)
    assert f"The last start failed: {answer.message}" in words(page)
    assert outlook(page) == "Starts at once."


@pytest.mark.parametrize("server", ["", "lab"])
async def test_what_no_page_can_hold_does_not_break_the_form(hub: Hub, server: str) -> None:
    """JSON can name halves of characters; the form after such a start is there."""
    body = '{"user_options": {"packages": "six \\ud800", "profile": "\\udfff", "image": "\\ud800"}}'
    await hub.call("POST", "/users/ada")
    path = f"/users/ada/servers/{server}" if server else "/users/ada/server"
    answer = await hub.call("POST", path, data=body, token=ADMIN_TOKEN)
    assert answer.status == 400
    page = await form(hub, path=f"/spawn/ada/{server}".rstrip("/"))
    assert field_value(page, "packages") == "six ?"
