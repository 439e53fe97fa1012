"""The policy's settings: as lists with and without reasons, for everybody and for some."""

from __future__ import annotations

from typing import Any

import pytest

from prebuilt_spawner import errors
from prebuilt_spawner.build.preview import Preview, Readiness
from prebuilt_spawner.environment.policy import read_rules

from .doubles import Hub


async def test_a_reason_is_shown_to_the_user(hub: Hub) -> None:
    hub.configure(denied_packages={"torch": "use the GPU profile"})
    answer = await hub.start("ada", {"packages": ["torch"]})
    assert answer.status == 403
    assert "torch is not allowed for ada: use the GPU profile." in answer.message
    browser = await hub.log_in("ada")
    await browser.get("/spawn")
    page = await browser.post("/spawn", {"packages": "torch"})
    assert page.status == 403
    assert "use the GPU profile" in page.text


def denied_for_students(spawner: Any) -> Any:
    groups = {group.name for group in spawner.user.groups}
    return {"torch": "students have no GPU"} if "students" in groups else []


async def denied_later(spawner: Any) -> Any:
    return denied_for_students(spawner)


@pytest.mark.parametrize("setting", [denied_for_students, denied_later])
async def test_a_list_may_come_from_a_function_of_the_user_and_the_groups(hub: Hub, setting: Any) -> None:
    """It may be async; the groups are those of the user whose server it is."""
    hub.configure(denied_packages=setting)
    await hub.call("POST", "/groups/students", {"users": []})
    await hub.call("POST", "/users/ada")
    await hub.call("POST", "/groups/students/users", {"users": ["ada"]})
    refused = await hub.start("ada", {"packages": ["torch"]})
    assert refused.status == 403
    assert "students have no GPU" in refused.message
    assert (await hub.start("bob", {"packages": ["torch"]})).status == 201


@pytest.mark.parametrize("returned", [None, "torch", {"torch": 5}, ["a b"]])
async def test_a_function_that_returns_no_list_lets_nobody_through(hub: Hub, returned: Any) -> None:
    """It is the administrator's mistake, and users are not told its text."""
    hub.configure(denied_packages=lambda spawner: returned)
    answer = await hub.start("ada", {"packages": ["six"]})
    assert answer.status == 500
    assert "administrator" in answer.message
    assert hub.manager.requests == []


async def test_the_request_carries_the_policy_to_what_is_installed(hub: Hub) -> None:
    """With what the profile overrides, whether the form asks or a start."""
    profile = {
        "display_name": "Lab",
        "slug": "lab",
        "packages": ["numpy"],
        "spawner_override": {"denied_packages": {"six": ""}, "max_packages": 3},
    }
    hub.configure(profile_list=[profile], denied_packages={"torch": "too big"})
    assert (await hub.start("ada", {"packages": ["attrs"]})).status == 201
    (request,) = hub.manager.requests
    assert request.own_requirements == ("attrs",)
    assert request.policy.denied_packages == read_rules({"torch": "too big", "six": ""})
    assert request.policy.max_packages == 3
    hub.configure(profile_list=[{**profile, "spawner_override": {"denied_packages": ["attrs"]}}])
    browser = await hub.log_in("bob")
    page = await browser.get("/spawn?opt-packages=attrs")
    assert "The package attrs is not allowed for bob" in page.text


async def test_a_refusal_after_resolving_is_a_403_too(hub: Hub) -> None:
    """What was stored before is stored again."""
    await hub.start("ada", {"packages": ["attrs"]})
    await hub.stop("ada")
    hub.manager.error = errors.PolicyRefusal("six 1.17 is not allowed for ada. Ask for something else.")
    answer = await hub.start("ada", {"packages": ["python-dateutil"]})
    assert (answer.status, answer.message) == (403, hub.manager.error.message)
    assert hub.stored("ada") == {"packages": ["attrs"]}


async def test_the_form_says_that_a_policy_is_in_the_way(hub: Hub) -> None:
    refused = Preview(readiness=Readiness.FAILED, error="six 1.17 is not allowed for ada. Ask for something else.")
    hub.manager.previews[("python-dateutil",)] = refused
    page = await (await hub.log_in("ada")).get("/spawn?opt-packages=python-dateutil")
    assert "Cannot work: six 1.17 is not allowed for ada." in page.text


async def test_who_has_had_enough_built_gets_a_429(hub: Hub) -> None:
    """The limit is that of the user whose server it is; administrators have none."""
    hub.configure(max_builds_per_user_per_hour=7)
    await hub.start("ada", {"packages": ["attrs"]})
    await hub.start("root", {"packages": ["attrs"]})
    assert [request.policy.max_builds_per_hour for request in hub.manager.requests] == [7, 0]
    hub.manager.error = errors.BuildRateExceeded("You have had 7 environments prepared. Try again in 5 minutes.")
    answer = await hub.start("bob", {"packages": ["attrs"]})
    assert (answer.status, answer.message) == (429, hub.manager.error.message)


MATHS = {"display_name": "Maths", "slug": "maths", "packages": ["numpy"]}


async def root_later(spawner: Any) -> Any:
    return {"user": "root"}


ROOTS: list[Any] = [{"user": "root"}, {"user": 0}, {"user": "0:100"}, lambda spawner: {"user": "root"}, root_later]


@pytest.mark.parametrize("create_kwargs", ROOTS)
async def test_users_packages_are_refused_in_a_container_that_starts_as_root(
    hub: Hub, create_kwargs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Free lists and what is added to a profile; profiles start, as root. The log says what to change."""
    hub.configure(extra_create_kwargs=create_kwargs, environment={"CHOWN_HOME": "yes"})
    hub.app.log.propagate = True
    for profile_list in ([], [MATHS]):
        hub.configure(profile_list=profile_list)
        with caplog.at_level("INFO", hub.app.log.name):
            refused = await hub.start("ada", {"packages": ["six"]})
        assert refused.status == 403
        assert "starts as root" in refused.message
        assert hub.manager.requests[-1].policy.container_user.partition(":")[0] in ("root", "0")
        assert hub.docker.containers == {}
    assert "leave `user` out of extra_create_kwargs" in caplog.text
    assert "CHOWN_HOME" in caplog.text
    assert (await hub.start("ada", {"user_options": {}})).status == 201
    assert str(hub.created("ada")["user"]).partition(":")[0] in ("root", "0")


async def test_a_base_whose_user_is_root_is_root_unless_another_user_is_set(hub: Hub) -> None:
    hub.manager.uid = 0
    assert (await hub.start("ada", {"packages": ["six"]})).status == 403
    assert (await hub.start("ada", {"user_options": {}})).status == 201
    hub.configure(extra_create_kwargs={"user": "1000:100"})
    assert (await hub.start("bob", {"packages": ["six"]})).status == 201


async def test_variables_that_need_root_harm_nothing_without_it(hub: Hub) -> None:
    hub.configure(environment={"NB_UID": "1001", "CHOWN_HOME": "yes", "GRANT_SUDO": "yes"})
    assert (await hub.start("ada", {"packages": ["six"]})).status == 201


async def test_what_a_hook_makes_root_is_refused_too(hub: Hub) -> None:
    """Whatever the settings said when the options were read."""

    def hook(spawner: Any) -> None:
        spawner.extra_create_kwargs = {"user": "root"}

    hub.configure(pre_spawn_hook=hook)
    assert (await hub.start("ada", {"packages": ["six"]})).status == 403
    assert hub.docker.containers == {}


async def test_a_container_from_before_that_starts_as_root_is_made_anew(hub: Hub) -> None:
    await hub.start("ada", {"packages": ["six"]})
    await hub.stop("ada")
    first = hub.container("ada")
    first["Config"]["User"] = "root"
    assert (await hub.start("ada")).status == 201
    assert hub.container("ada")["Id"] != first["Id"]


async def test_the_form_knows_of_the_settings(hub: Hub) -> None:
    """Where they are no callable; a profile's are its own."""
    asked: list[Any] = []

    async def preview(requests: Any) -> Any:
        asked.extend(requests)
        return [Preview(readiness=Readiness.UNBUILT) for _ in requests]

    hub.manager.preview = preview  # type: ignore[method-assign]
    rooted = {**MATHS, "spawner_override": {"extra_create_kwargs": {"user": "root"}}}
    hub.configure(profile_list=[rooted, {**MATHS, "display_name": "Plain", "slug": "plain"}])
    await (await hub.log_in("ada")).get("/spawn")
    assert {request.profile.slug: request.policy.container_user for request in asked} == {"maths": "root", "plain": ""}
