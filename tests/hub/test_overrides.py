"""Settings that hold for one start: profiles' overrides and administrators' hooks."""

from __future__ import annotations

from typing import Any

from .doubles import Hub

BIG = {
    "display_name": "Big",
    "slug": "big",
    "spawner_override": {
        "mem_limit": "8G",
        "environment": {"COURSE": "maths", "REMOVED": None},
        "http_timeout": lambda spawner: 77 if spawner.user.name == "ada" else 1,
    },
}
PLAIN = {"display_name": "Plain", "slug": "plain", "default": True}


async def test_a_profiles_override_is_merged_as_kubespawner_does(hub: Hub) -> None:
    """Dicts are merged, None removes a key, callables get the spawner."""
    hub.configure(profile_list=[PLAIN, BIG], environment={"KEPT": "1", "REMOVED": "1"})
    await hub.start("ada", {"profile": "big"})
    environment = hub.created("ada")["environment"]
    assert (environment["COURSE"], environment["KEPT"]) == ("maths", "1")
    assert "REMOVED" not in environment
    assert hub.created("ada")["host_config"]["Memory"] == 8 * 1024**3
    assert hub.spawner("ada").http_timeout == 77


async def test_an_override_does_not_leak_into_the_next_start(hub: Hub) -> None:
    hub.configure(profile_list=[PLAIN, BIG], environment={"REMOVED": "1"})
    await hub.start("ada", {"profile": "big"})
    spawner = hub.spawner("ada")
    await hub.stop("ada")
    await hub.start("ada", {"profile": "plain"})
    environment = hub.created("ada")["environment"]
    assert "COURSE" not in environment
    assert environment["REMOVED"] == "1"
    assert not hub.created("ada")["host_config"].get("Memory")
    # JupyterHub makes a new spawner for each start; one that is used again is clean as well.
    await spawner.apply_group_overrides()
    assert spawner.environment == {"REMOVED": "1"}
    assert not spawner.mem_limit
    assert spawner.image == "example/base:1"


async def test_a_refused_start_leaves_no_override_behind(hub: Hub) -> None:
    hub.configure(profile_list=[PLAIN, {**BIG, "allow_extra_packages": False}])
    assert (await hub.start("ada", {"profile": "big", "packages": ["six"]})).status == 403
    assert (await hub.start("ada", {"profile": "plain"})).status == 201
    assert not hub.created("ada")["host_config"].get("Memory")


async def test_an_override_of_something_that_does_not_exist_is_the_administrators_error(hub: Hub) -> None:
    hub.configure(profile_list=[{"display_name": "X", "slug": "x", "spawner_override": {"memory_limit": "1G"}}])
    answer = await hub.start("ada")
    assert answer.status == 500
    assert hub.docker.containers == {}


async def test_an_override_may_name_the_base_image(hub: Hub) -> None:
    hub.configure(profile_list=[{"display_name": "X", "slug": "x", "spawner_override": {"image": "example/gpu:1"}}])
    await hub.start("ada")
    assert hub.manager.requests[0].base == "example/gpu:1"


async def test_the_administrators_hook_runs_between_policy_and_preparation(hub: Hub) -> None:
    """It sees the chosen base and may name another; a refused request does not reach it."""
    seen: list[Any] = []

    async def hook(spawner: Any) -> None:
        seen.append((spawner.image, len(hub.manager.requests)))
        spawner.image = "example/hooked:1"

    hub.configure(pre_spawn_hook=hook, allowed_images={"Big": "example/big:2"})
    await hub.start("ada", {"image": "Big"})
    assert seen == [("example/big:2", 0)]
    assert hub.manager.requests[0].base == "example/hooked:1"
    assert (await hub.start("bob", {"image": "nope"})).status == 400
    assert len(seen) == 1


async def test_a_hooks_own_refusal_reaches_the_user(hub: Hub) -> None:
    from tornado import web

    def hook(spawner: Any) -> None:
        raise web.HTTPError(402, "Pay first")

    hub.configure(pre_spawn_hook=hook)
    assert (await hub.start("ada")).status == 402
    assert hub.manager.requests == []


async def test_options_that_a_hook_changes_are_validated_too(hub: Hub) -> None:
    def hook(spawner: Any) -> None:
        spawner.user_options = {"packages": ["six", "torch"]}

    hub.configure(pre_spawn_hook=hook, denied_packages=["torch"])
    assert (await hub.start("ada")).status == 403
    hub.configure(denied_packages=[])
    assert (await hub.start("bob")).status == 201
    assert hub.manager.requests[0].requirements == ("six", "torch")


async def test_an_apply_user_options_of_the_administrators_does_not_switch_validation_off(hub: Hub) -> None:
    hub.configure(apply_user_options=lambda spawner, options: None, denied_packages=["torch"])
    assert (await hub.start("ada", {"packages": ["torch"]})).status == 403
    assert (await hub.start("ada", {"packages": ["six"]})).status == 201


async def test_the_groups_of_the_target_user_decide_too(hub: Hub) -> None:
    """`group_overrides` come before our validation."""
    hub.configure(
        allow_custom_packages=False,
        group_overrides={"staff": {"groups": ["staff"], "spawner_override": {"allow_custom_packages": True}}},
    )
    await hub.call("POST", "/users/ada")
    await hub.call("POST", "/groups/staff")
    await hub.call("POST", "/groups/staff/users", {"users": ["ada"]})
    assert (await hub.start("ada", {"packages": ["six"]})).status == 201
    assert (await hub.start("bob", {"packages": ["six"]})).status == 403


async def test_a_profiles_lock_file_is_handed_over_and_a_missing_one_is_a_503(hub: Hub, tmp_path: Any) -> None:
    lock = tmp_path / "pylock.maths.toml"
    lock.write_text('lock-version = "1.0"\n')
    profile = {"display_name": "Maths", "slug": "maths", "packages": ["numpy"], "lock": str(lock)}
    hub.configure(profile_list=[profile])
    assert (await hub.start("ada")).status == 201
    assert hub.manager.requests[0].profile.pylock == 'lock-version = "1.0"\n'
    lock.unlink()
    answer = await hub.start("bob")
    assert answer.status == 503
    assert str(tmp_path) not in answer.text
