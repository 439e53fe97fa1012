"""User options: the contract's rules, on every road into the hub."""

from __future__ import annotations

from typing import Any

import pytest

from prebuilt_spawner import errors

from .doubles import REPOSITORY, Answer, Hub

PROFILES = [
    {"display_name": "Plain", "slug": "plain"},
    {"display_name": "Maths", "slug": "maths", "packages": ["numpy"], "default": True},
    {"display_name": "Exam", "slug": "exam", "packages": ["pandas"], "allow_extra_packages": False},
]


async def start_again(hub: Hub, user: str, body: Any) -> Answer:
    await hub.stop(user)
    return await hub.start(user, body)


async def test_a_list_of_packages_starts_a_container_from_their_image(hub: Hub) -> None:
    """The container's image is the one that was prepared for exactly these packages on the configured base."""
    answer = await hub.start("ada", {"user_options": {"packages": ["XlsxWriter", "python_docx>=1"]}})
    assert answer.status == 201, answer.text
    (request,) = hub.manager.requests
    assert (request.user, request.base) == ("ada", "example/base:1")
    assert request.requirements == ("python-docx>=1", "xlsxwriter")
    assert hub.container("ada")["Config"]["Image"].startswith(f"{REPOSITORY}:")
    assert hub.container("ada")["State"]["Running"]


async def test_text_and_list_stand_for_the_same_request(hub: Hub) -> None:
    await hub.start("ada", {"packages": ["python-docx>=1", "xlsxwriter"]})
    await hub.start("bob", {"packages": "Python_DOCX >= 1.0\n# reports\nXlsxWriter"})
    first, second = (request.requirements for request in hub.manager.requests)
    assert first == second


async def test_the_manager_gets_the_options_as_they_are_stored(hub: Hub) -> None:
    """To offer them again: without `refresh`, which is an act, and as the user wrote them."""
    await hub.start("ada", {"user_options": {"packages": "XlsxWriter  # reports", "refresh": True}})
    (request,) = hub.manager.requests
    assert request.refresh
    assert request.options == {"packages": "XlsxWriter  # reports"} == hub.stored("ada")


async def test_no_packages_still_start_a_prepared_environment(hub: Hub) -> None:
    """The base itself is never started: it lacks the notice and is not checked."""
    await hub.start("ada")
    assert hub.manager.requests[0].requirements == ()
    assert hub.container("ada")["Config"]["Image"].startswith(f"{REPOSITORY}:")


async def test_both_body_forms_mean_the_same(hub: Hub) -> None:
    """JupyterHub 6's body has the options under `user_options`; 5.5's is the options. Each works on both."""
    await hub.start("ada", {"packages": ["six"]})
    await hub.start("bob", {"user_options": {"packages": ["six"]}})
    assert hub.stored("ada") == {"packages": ["six"]}
    assert hub.stored("bob") == {"packages": ["six"]}


async def test_an_empty_body_repeats_what_was_stored(hub: Hub) -> None:
    await hub.start("ada", {"packages": ["six"]})
    for body in (None, {}):
        answer = await start_again(hub, "ada", body)
        assert answer.status == 201
        assert hub.manager.requests[-1].requirements == ("six",)


async def test_empty_options_clear_what_was_stored(hub: Hub) -> None:
    await hub.start("ada", {"packages": ["six"]})
    await start_again(hub, "ada", {"user_options": {}})
    assert hub.manager.requests[-1].requirements == ()
    assert hub.stored("ada") == {}


async def test_without_a_profile_the_default_one_applies_and_packages_add_to_it(hub: Hub) -> None:
    hub.configure(profile_list=PROFILES)
    await hub.start("ada", {"user_options": {}})
    await hub.start("bob", {"packages": ["six"]})
    plain, added = hub.manager.requests
    assert plain.profile.slug == added.profile.slug == "maths"
    assert (plain.requirements, added.requirements) == (("numpy",), ("numpy", "six"))
    assert added.profile.requirements == ("numpy",)


async def test_a_named_profile_applies(hub: Hub) -> None:
    hub.configure(profile_list=PROFILES)
    await hub.start("ada", {"profile": "plain"})
    assert hub.manager.requests[0].profile.slug == "plain"
    assert hub.manager.requests[0].requirements == ()


async def test_a_profile_may_forbid_what_the_hub_allows_and_the_reverse(hub: Hub) -> None:
    """`allow_extra_packages` of a profile is stronger than `allow_custom_packages`, in both directions."""
    open_profile = {"display_name": "Open", "slug": "open", "allow_extra_packages": True}
    hub.configure(profile_list=[*PROFILES, open_profile])
    assert (await hub.start("ada", {"profile": "exam", "packages": ["six"]})).status == 403
    hub.configure(allow_custom_packages=False)
    assert (await hub.start("bob", {"profile": "maths", "packages": ["six"]})).status == 403
    assert (await hub.start("eve", {"profile": "open", "packages": ["six"]})).status == 201


async def test_packages_that_contradict_the_profile_are_a_400(hub: Hub) -> None:
    pinned = {"display_name": "Pinned", "slug": "pinned", "packages": ["numpy==1.26.4"]}
    hub.configure(profile_list=[pinned])
    answer = await hub.start("ada", {"packages": ["numpy==2.0.0"]})
    assert answer.status == 400
    assert "numpy" in answer.message


@pytest.mark.parametrize("make", [lambda: PROFILES, lambda: {"maths": {"display_name": "Maths", "packages": "numpy"}}])
@pytest.mark.parametrize("is_async", [False, True])
async def test_profiles_may_come_from_a_function_of_the_spawner(hub: Hub, make: Any, is_async: bool) -> None:
    """It may be async, return a list or a dict, and look at the user."""
    asked_for = []

    def profiles(spawner: Any) -> Any:
        asked_for.append(spawner.user.name)
        return make()

    async def profiles_later(spawner: Any) -> Any:
        return profiles(spawner)

    hub.configure(profile_list=profiles_later if is_async else profiles)
    answer = await hub.start("ada", {"profile": "maths"})
    assert answer.status == 201, answer.text
    assert asked_for == ["ada"]


async def test_a_broken_profile_function_is_an_internal_error_without_its_text(hub: Hub) -> None:
    def profiles(spawner: Any) -> Any:
        raise RuntimeError("password=hunter2")

    hub.configure(profile_list=profiles)
    answer = await hub.start("ada", {"profile": "maths"})
    assert answer.status == 500
    assert "hunter2" not in answer.text
    assert "administrator" in answer.message


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"packages": ["https://example.com/x.whl"]}, "https://example.com/x.whl"),
    ({"packages": ["x @ https://example.com/x.whl"]}, "x"),
    ({"packages": "-e ."}, "-e"),
    ({"packages": "-r other.txt"}, "-r"),
    ({"packages": ["--index-url=https://example.com"]}, "--index-url"),
    ({"packages": ["../x"]}, "../x"),
    ({"packages": ["./dir"]}, "./dir"),
    ({"packages": ["six;$(reboot)"]}, "six"),
    ({"packages": ["si\nx"]}, "si"),
    ({"packages": ["$HOME"]}, "HOME"),
    ({"packages": ["six\0"]}, "six"),
    ({"packages": ["🐍"]}, "🐍"),
    ({"packages": "x" * 1_000_000}, ""),
    ({"packages": [f"p{number}" for number in range(10_000)]}, ""),
    ({"packages": 5}, "packages"),
    ({"packages": {"six": "1"}}, ""),
    ({"packages": [["six"]]}, ""),
    ({"package": ["six"]}, "package"),
    ({"packages": ["six"], "cmd": "rm"}, "cmd"),
    ({"profile": "nope"}, "nope"),
    ({"profile": 5}, "profile"),
    ({"profile": ["maths"]}, "profile"),
    ({"image": "other/base"}, "other/base"),
    ({"image": {"a": 1}}, "image"),
    ({"refresh": "yes"}, "refresh"),
    ({"refresh": 1}, "refresh"),
]


@pytest.mark.parametrize("body", ["[1]", "5", "true", '"six"', '{"user_options": [1]}', '{"user_options": 5}'])
async def test_a_body_without_options_is_a_400_and_leaves_what_was_stored(hub: Hub, body: str) -> None:
    """JupyterHub 5 stores and assigns whatever it is."""
    await hub.start("ada", {"packages": ["six"]})
    await hub.stop("ada")
    assert (await hub.start("ada", data=body)).status == 400
    assert hub.stored("ada") == {"packages": ["six"]}
    assert (await hub.start("ada")).status == 201
    assert hub.manager.requests[-1].requirements == ("six",)


async def test_bad_options_are_a_400_that_names_the_offender_and_start_nothing(hub: Hub) -> None:
    hub.configure(profile_list=PROFILES)
    for options, offender in BAD_OPTIONS:
        answer = await hub.start("ada", {"user_options": options})
        assert answer.status == 400, (str(options)[:100], answer.text)
        assert offender in answer.message, (str(options)[:100], answer.message)
        assert len(answer.message) < 1000
    assert hub.manager.requests == []
    assert hub.docker.containers == {}


async def test_the_policy_is_that_of_the_user_whose_server_it_is(hub: Hub) -> None:
    """An administrator's token gives no user more than the user may have, and costs nobody anything."""
    hub.configure(allow_custom_packages=lambda spawner: spawner.user.name == "ada")
    refused = await hub.start("bob", {"packages": ["six"]})
    assert refused.status == 403
    assert "six" in refused.message
    assert (await hub.start("ada", {"packages": ["six"]})).status == 201


async def test_denied_too_many_and_unlisted_packages_are_a_403(hub: Hub) -> None:
    hub.configure(denied_packages=["torch"], max_packages=2)
    for packages in (["six", "Torch"], ["a1", "b1", "c1"]):
        assert (await hub.start("ada", {"packages": packages})).status == 403
    hub.configure(allowed_packages=["six"])
    assert (await hub.start("ada", {"packages": ["seven"]})).status == 403
    assert hub.manager.requests == []


REFUSALS = [
    ({"packages": ["../x"]}, None, 400),
    ({"packages": ["torch"]}, None, 403),
    ({"packages": ["nope"]}, errors.UnresolvableRequest("There is no package nope."), 422),
    ({"packages": ["nope"]}, errors.UnbuildableEnvironment("nope and six have one file."), 422),
]


@pytest.mark.parametrize(("options", "error", "status"), REFUSALS)
async def test_a_refused_request_leaves_the_stored_options_in_place(
    hub: Hub, options: Any, error: BaseException | None, status: int
) -> None:
    """JupyterHub stores options before it validates them; the next plain start repeats what worked last."""
    hub.configure(denied_packages=["torch"])
    good = {"packages": ["six"]}
    await hub.start("ada", good)
    hub.manager.error = error
    answer = await start_again(hub, "ada", options)
    assert answer.status == status
    assert hub.stored("ada") == good
    assert hub.spawner("ada").user_options == good
    hub.manager.error = None
    assert (await hub.start("ada")).status == 201
    assert hub.manager.requests[-1].requirements == ("six",)


async def test_a_refused_first_request_is_not_stored(hub: Hub) -> None:
    assert (await hub.start("ada", {"packages": ["../x"]})).status == 400
    assert not hub.stored("ada")
    assert (await hub.start("ada")).status == 201


async def test_several_refusals_in_a_row_keep_what_worked(hub: Hub) -> None:
    await hub.start("ada", {"packages": ["six"]})
    await hub.stop("ada")
    for name in ("../x", "../y"):
        assert (await hub.start("ada", {"packages": [name]})).status == 400
    assert hub.stored("ada") == {"packages": ["six"]}


async def test_what_the_surroundings_refuse_stays_stored(hub: Hub) -> None:
    """A request that was good is repeated when the engine is back."""
    hub.manager.error = errors.EngineUnavailable("The engine cannot be reached.")
    assert (await hub.start("ada", {"packages": ["six"]})).status == 503
    hub.manager.error = None
    assert (await hub.start("ada")).status == 201
    assert hub.manager.requests[-1].requirements == ("six",)


async def test_refresh_is_done_once_and_never_stored(hub: Hub) -> None:
    """It is gone from the database and from the server's model before anything is resolved."""
    await hub.start("ada", {"packages": ["six"], "refresh": True})
    assert hub.manager.requests[0].refresh
    assert hub.stored("ada") == {"packages": ["six"]}
    model = (await hub.call("GET", "/users/ada?include_stopped_servers")).json
    assert model["servers"][""]["user_options"] == {"packages": ["six"]}
    await start_again(hub, "ada", None)
    assert not hub.manager.requests[1].refresh


async def test_refresh_is_not_repeated_after_a_failure(hub: Hub) -> None:
    hub.manager.error = errors.EngineUnavailable("The engine cannot be reached.")
    assert (await hub.start("ada", {"packages": ["six"], "refresh": True})).status == 503
    hub.manager.error = None
    await hub.start("ada")
    assert [request.refresh for request in hub.manager.requests] == [True, False]


async def test_only_administrators_renew_what_is_everybodys(hub: Hub) -> None:
    """It is the user whose server starts who must be one, not who makes the call."""
    await hub.start("root", {"refresh": True})
    await hub.start("ada", {"refresh": True})
    assert [request.may_refresh_profile for request in hub.manager.requests] == [True, False]


async def test_an_image_is_a_key_of_the_allowed_images(hub: Hub) -> None:
    """The key's image is the base; DockerSpawner does not put it in the place of the prepared one as it starts."""
    hub.configure(allowed_images={"Big": "example/big:2", "Small": "example/small:1"})
    await hub.start("ada", {"image": "Big", "packages": ["six"]})
    assert hub.manager.requests[0].base == "example/big:2"
    assert hub.container("ada")["Config"]["Image"].startswith(f"{REPOSITORY}:")
    assert (await hub.start("bob", {"image": "example/big:2"})).status == 400


@pytest.mark.parametrize("image", ["example/other:1", f"{REPOSITORY}:{'0' * 64}"])
async def test_a_refused_image_is_said_to_be_the_images_fault(hub: Hub, image: str) -> None:
    """The form shows the message beside the images."""
    await hub.start("ada")
    hub.configure(allowed_images={"Big": "example/big:2"} if image.startswith("example") else "*")
    with pytest.raises(errors.MalformedRequest) as caught:
        await hub.spawner("ada")._base(image, None)
    assert caught.value.about == "image"


async def test_the_users_image_is_stronger_than_the_profiles(hub: Hub) -> None:
    profile = {"display_name": "GPU", "slug": "gpu", "image": "example/gpu:1"}
    hub.configure(allowed_images={"Big": "example/big:2"}, profile_list=[profile])
    await hub.start("ada")
    await hub.start("bob", {"image": "Big"})
    assert [request.base for request in hub.manager.requests] == ["example/gpu:1", "example/big:2"]


@pytest.mark.parametrize("prefix", ["", "docker.io/", "index.docker.io/"])
async def test_a_prepared_image_is_no_base_even_where_all_images_are_allowed(hub: Hub, prefix: str) -> None:
    """Users could start each other's environments by name otherwise."""
    hub.configure(allowed_images="*")
    answer = await hub.start("ada", {"image": f"{prefix}{REPOSITORY}:{'a' * 64}"})
    assert answer.status == 400
    assert hub.manager.requests == []
    assert (await hub.start("ada", {"image": "example/other:1"})).status == 201


async def test_stored_options_are_validated_like_new_ones(hub: Hub) -> None:
    """What was allowed last term is not started today."""
    await hub.start("ada", {"packages": ["six"]})
    await hub.stop("ada")
    hub.configure(allow_custom_packages=False)
    assert (await hub.start("ada")).status == 403
    assert len(hub.manager.requests) == 1


async def test_named_servers_have_options_of_their_own(hub: Hub) -> None:
    await hub.start("ada", {"packages": ["six"]})
    await hub.start("ada", {"packages": ["attrs"]}, server="lab")
    assert hub.stored("ada") == {"packages": ["six"]}
    assert hub.stored("ada", "lab") == {"packages": ["attrs"]}
    assert (await hub.start("ada", {"packages": ["../x"]}, server="two")).status == 400
    assert not hub.stored("ada", "two")
