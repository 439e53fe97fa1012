"""The settings: their names, defaults and what is refused when they are read."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from jupyterhub.spawner import Spawner
from traitlets import TraitError
from traitlets.config import Config

import prebuilt_spawner
from prebuilt_spawner import PrebuiltSpawner
from prebuilt_spawner.hub.config import PrebuiltConfig
from prebuilt_spawner.hub.deadline import DeadlinePassed, within
from prebuilt_spawner.hub.runtime import shared_manager

DEFAULTS = {
    "allow_custom_packages": False,
    "allowed_packages": [],
    "denied_packages": [],
    "max_packages": 100,
    "max_environment_bytes": 10 * 1024**3,
    "max_builds_per_user_per_hour": 60,
    "profile_list": [],
    "index_url": "",
    "extra_index_urls": [],
    "allow_source_builds": True,
    "source_build_limits": {
        "memory_bytes": 2 * 1024**3,
        "disk_bytes": 1024**3,
        "processes": 256,
        "cpus": 1,
        "seconds": 600,
        "output_bytes": 64 * 1024**2,
    },
    "repository": "prebuilt-spawner/env",
    "registry": "",
    "build_timeout": 1800,
    "max_concurrent_builds": 2,
    "max_queued_builds": 50,
    "failure_ttl": 600,
    "immutable": True,
    "scratch": {"/tmp": 0, "/var/tmp": 0, "/run": 64 * 1024**2},
    "db_url": "sqlite:///prebuilt_spawner.sqlite",
    "cache_dir": "prebuilt_spawner_cache",
    "max_cache_bytes": 20 * 1024**3,
    "min_free_bytes": 5 * 1024**3,
}


def test_names_and_defaults_are_those_that_people_rely_on() -> None:
    settings = PrebuiltConfig()
    assert {name: getattr(settings, name) for name in PrebuiltConfig.class_own_traits(config=True)} == DEFAULTS


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_every_setting_says_what_its_default_means(name: str) -> None:
    assert "Default: " in PrebuiltConfig.class_traits()[name].help


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("profile_list", [{"display_name": "A", "profile_options": {}}], "profile_options"),
        ("registry", "https://registry.example.org", "without https://"),
        ("registry", "registry.example.org/group", "without a path"),
        ("registry", "registry", "a host such as"),
        ("registry", "Registry.example.org", "small letters"),
        ("registry", "docker.io", "Docker Hub"),
        ("registry", "index.docker.io", "Docker Hub"),
        ("registry", "user:secret@registry.example.org", "a host such as"),
        ("profile_list", [{"display_name": "A", "kubespawner_override": {}}], "spawner_override"),
        ("profile_list", [{"slug": "a"}], "display_name"),
        ("profile_list", {"a": {"display_name": "A", "packages": ["-e ."]}}, "-e"),
        ("allowed_packages", ["a b"], "a b"),
        ("denied_packages", ["numpy>=x"], "numpy"),
        ("denied_packages", {"numpy": 5}, "denied_packages"),
        ("allowed_packages", {"a b": "why"}, "allowed_packages"),
        ("allowed_packages", "numpy", "allowed_packages"),
        ("max_environment_bytes", -1, "max_environment_bytes"),
        ("max_builds_per_user_per_hour", -1, "max_builds_per_user_per_hour"),
        ("index_url", "https://me:s3c/ret@index.test/", "%2F"),
        ("extra_index_urls", ["https://one.test/", "corp=https://me:s3c#ret@index.test/"], "%23"),
        ("source_build_limits", {"memory": 1}, "memory_bytes"),
        ("source_build_limits", {"seconds": 0}, "seconds"),
        ("source_build_limits", {"processes": 1.5}, "whole number"),
        ("source_build_limits", {"cpus": True}, "cpus"),
        ("repository", "Env", "Env"),
        ("repository", "env:latest", "tag"),
        ("repository", "", "repository"),
        ("build_timeout", -1, "build_timeout"),
        ("max_concurrent_builds", 0, "max_concurrent_builds"),
        ("max_queued_builds", -1, "max_queued_builds"),
        ("failure_ttl", -1, "failure_ttl"),
        ("max_cache_bytes", -1, "max_cache_bytes"),
        ("min_free_bytes", -1, "min_free_bytes"),
        ("scratch", {"tmp": 0}, "absolute path"),
        ("scratch", {"/": 0}, "absolute path"),
        ("scratch", {"/a:b": 0}, "character"),
        ("scratch", {"/tmp": "1g"}, "number of bytes"),
        ("scratch", {"/tmp": -1}, "number of bytes"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_when_it_is_read(name: str, value: object, word: str) -> None:
    with pytest.raises(TraitError, match=word):
        PrebuiltConfig(config=Config(PrebuiltConfig={name: value}))


def test_the_class_is_found_by_its_entry_point_and_its_public_name() -> None:
    from importlib.metadata import entry_points

    (entry_point,) = entry_points(group="jupyterhub.spawners", name="prebuilt")
    assert entry_point.load() is PrebuiltSpawner is prebuilt_spawner.PrebuiltSpawner
    assert issubclass(PrebuiltSpawner, Spawner)


def test_the_package_is_imported_without_jupyterhub_and_docker() -> None:
    code = (
        "import sys, prebuilt_spawner, prebuilt_spawner.environment.options; "
        "assert not {'jupyterhub', 'docker', 'dockerspawner'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nope"):
        prebuilt_spawner.Nope  # noqa: B018


class CountedManager:
    def __init__(self) -> None:
        self.closed = 0

    async def ensure(self, request: object, *, report: object) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        self.closed += 1


def test_a_hub_has_one_manager_however_many_ask_and_closes_it_at_its_end() -> None:
    """Two hubs in one process, one after the other, have one each."""
    made: list[CountedManager] = []

    async def make() -> CountedManager:
        await asyncio.sleep(0)
        made.append(CountedManager())
        return made[-1]

    async def hub() -> None:
        managers = await asyncio.gather(*(shared_manager(make) for _ in range(5)))
        assert len(set(managers)) == 1
        assert managers[0].closed == 0

    asyncio.run(hub())
    asyncio.run(hub())
    assert [manager.closed for manager in made] == [1, 1]


async def test_a_manager_that_cannot_be_made_is_tried_again() -> None:
    async def fail() -> CountedManager:
        raise OSError("disk")

    async def succeed() -> CountedManager:
        return CountedManager()

    with pytest.raises(OSError, match="disk"):
        await shared_manager(fail)
    assert await shared_manager(succeed) is await shared_manager(fail)


async def test_who_asks_first_may_leave_without_harm() -> None:
    gate = asyncio.Event()

    async def make() -> CountedManager:
        await gate.wait()
        return CountedManager()

    first = asyncio.create_task(shared_manager(make))
    second = asyncio.create_task(shared_manager(make))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert isinstance(await second, CountedManager)
    assert first.cancelled()


async def test_work_that_does_not_end_in_time_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(DeadlinePassed):
        await within(0.01, work())
    assert cancelled.is_set()


async def test_a_caller_that_is_cancelled_cancels_the_work() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    waiting = asyncio.create_task(within(None, work()))
    await started.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cancelled.is_set()


async def test_what_the_work_raises_is_raised() -> None:
    async def work() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await within(10, work())
