"""What is one setting for the whole hub does not depend on who starts first."""

from __future__ import annotations

from typing import Any

import pytest
from traitlets import TraitError, default
from traitlets.config import Config

from prebuilt_spawner import PrebuiltSpawner
from prebuilt_spawner.build.sources import SourceBuildLimits
from prebuilt_spawner.hub import mixin
from prebuilt_spawner.hub.config import PrebuiltConfig
from prebuilt_spawner.hub.hub_wide import HUB_WIDE, HubWideSettings
from prebuilt_spawner.hub.runtime import RuntimeSettings
from prebuilt_spawner.hub.startup import check_settings

from .doubles import REPOSITORY, Hub

OTHER: dict[str, Any] = {
    "repository": "elsewhere/env",
    "registry": "registry.example",
    "immutable": False,
    "index_url": "https://index.example/simple",
    "extra_index_urls": ["https://extra.example/simple"],
    "allow_source_builds": False,
    "source_build_limits": {"seconds": 9},
    "db_url": "sqlite:///other.sqlite",
    "cache_dir": "other",
    "max_cache_bytes": 1,
    "min_free_bytes": 1,
    "max_concurrent_builds": 9,
    "max_queued_builds": 9,
    "failure_ttl": 9,
    "client_kwargs": {"base_url": "tcp://other.example:2376"},
    "tls_config": {"verify": False},
}


def test_everything_that_the_build_manager_is_made_from_is_hub_wide() -> None:
    jupyterhubs_own = {"concurrent_spawn_limit"}
    assert set(RuntimeSettings.__dataclass_fields__) - jupyterhubs_own <= set(HUB_WIDE)
    assert set(OTHER) == HUB_WIDE
    assert set(PrebuiltSpawner.class_trait_names(config=True)) >= HUB_WIDE


@pytest.mark.parametrize("name", sorted(OTHER))
@pytest.mark.parametrize("section", ["PrebuiltSpawner", "DockerSpawner", "Spawner"])
def test_a_profile_that_overrides_one_is_refused_at_hub_start(section: str, name: str) -> None:
    profile = {"display_name": "Maths", "spawner_override": {"mem_limit": "1G", name: lambda spawner: OTHER[name]}}
    with pytest.raises(TraitError, match=rf"profile maths sets {name}.*whole hub"):
        check_settings(Config({section: {"profile_list": [profile]}}))
    with pytest.raises(TraitError, match=name):
        PrebuiltConfig(profile_list={"maths": profile})


@pytest.mark.parametrize("name", sorted(OTHER))
async def test_a_callables_profile_that_overrides_one_starts_nothing(
    hub: Hub, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the setting; the user gets no word of it."""
    hub.configure(
        profile_list=lambda spawner: [{"display_name": "Maths", "spawner_override": {name: OTHER[name]}}],
    )
    hub.app.log.propagate = True
    answer = await hub.start("ada")
    assert answer.status == 503
    assert name not in answer.text
    assert any(name in record.getMessage() and "whole hub" in record.getMessage() for record in caplog.records)
    assert hub.manager.requests == []
    hub.configure(profile_list=[])
    assert (await hub.start("ada")).status == 201
    assert hub.created("ada")["host_config"]["ReadonlyRootfs"] is True


@pytest.mark.parametrize("name", ["immutable", "client_kwargs"])
async def test_group_overrides_and_hooks_cannot_change_one_either(hub: Hub, name: str) -> None:
    hub.configure(group_overrides={"staff": {"groups": ["staff"], "spawner_override": {name: OTHER[name]}}})
    await hub.call("POST", "/users/ada")
    await hub.call("POST", "/groups/staff")
    await hub.call("POST", "/groups/staff/users", {"users": ["ada"]})
    assert (await hub.start("ada")).status == 503
    assert (await hub.start("bob")).status == 201
    hub.configure(pre_spawn_hook=lambda spawner: setattr(spawner, name, OTHER[name]))
    assert (await hub.start("cleo")).status == 503


async def test_the_build_manager_is_made_from_what_is_configured(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the first start tries to change, and whoever's it is."""
    made: list[RuntimeSettings] = []

    async def build_manager(settings: RuntimeSettings) -> Any:
        made.append(settings)
        return hub.manager

    monkeypatch.setattr(mixin, "build_manager", build_manager)
    del hub.spawner_class._new_manager  # type: ignore[attr-defined]  # the double's
    hub.configure(
        index_url="https://configured.example/simple",
        extra_index_urls=["https://further.example/simple"],
        client_kwargs={"timeout": 77},
        profile_list=lambda spawner: [
            {"display_name": "Maths", "spawner_override": OTHER if spawner.user.name == "ada" else {}}
        ],
    )
    assert (await hub.start("ada")).status == 503
    assert (await hub.start("bob")).status == 201
    assert made == [
        RuntimeSettings(
            repository=REPOSITORY,
            immutable=True,
            index_url="https://configured.example/simple",
            extra_index_urls=("https://further.example/simple",),
            allow_source_builds=True,
            source_build_limits=SourceBuildLimits(),
            db_url="sqlite:///prebuilt_spawner.sqlite",
            cache_dir="prebuilt_spawner_cache",
            max_concurrent_builds=2,
            max_queued_builds=50,
            failure_ttl=600,
            max_cache_bytes=20 * 1024**3,
            min_free_bytes=5 * 1024**3,
            concurrent_spawn_limit=100,
            client_kwargs={"timeout": 77},
        )
    ]


async def test_a_changed_repository_opens_no_environment_as_a_base(hub: Hub) -> None:
    hub.configure(
        allowed_images="*",
        profile_list=lambda spawner: [{"display_name": "A", "spawner_override": {"repository": "elsewhere/env"}}],
    )
    answer = await hub.start("ada", {"image": f"{REPOSITORY}:{'0' * 64}"})
    assert answer.status == 400
    assert "prepared environment" in answer.message


def test_defaults_of_a_class_made_from_ours_count_and_so_does_what_is_appended_to_them() -> None:
    class Ours(PrebuiltSpawner):  # type: ignore[misc]
        @default("repository")
        def _default_repository(self) -> str:
            return "ours/env"

    config = Config()
    config.PrebuiltSpawner.extra_index_urls.append("https://appended.example/simple")
    settings = HubWideSettings(Ours(config=config)).for_runtime(concurrent_spawn_limit=0)
    assert settings.repository == "ours/env"
    assert settings.extra_index_urls == ("https://appended.example/simple",)
