"""What a resolver promises, on the in-memory double and on uv with an index on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import trustme

from prebuilt_spawner.adapters.memory import MemoryResolver
from prebuilt_spawner.adapters.network import NetworkSettings
from prebuilt_spawner.adapters.uv_resolver import MACHINES, MANYLINUX_MINORS, UvResolver, python_platform
from prebuilt_spawner.build.failure import Kind
from prebuilt_spawner.build.interface import Resolver, ResolveRequest
from prebuilt_spawner.environment.base import BaseProbe, InstalledDistribution
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.errors import (
    BaseImageUnavailable,
    BuildTimeout,
    IndexUnavailable,
    PrebuiltError,
    StorageFailure,
    UnresolvableRequest,
)
from tests.index_server import IndexServer, ProxyServer
from tests.unit.environment.probes import SITE, make_probe

PROTECTED = ("jupyterhub", "jupyter_server", "jupyterlab")


def installed(name: str, version: str, *requires: str, **more: Any) -> InstalledDistribution:
    """A package of a base."""
    return InstalledDistribution(
        name=name,
        version=version,
        location=SITE,
        metadata_directory=f"{name.replace('-', '_')}-{version}.dist-info",
        requires=requires,
        **more,
    )


def base_with(*distributions: InstalledDistribution, **changes: Any) -> BaseProbe:
    """A CPython 3.11 base with these packages."""
    return make_probe(distributions={found.name: found for found in distributions}, **changes)


SERVER = (
    installed("jupyterhub", "6.1.1", "tornado>=6.4"),
    installed("jupyterlab", "4.5.0", "jupyter-server>=2", "tornado<7"),
    installed("jupyter-server", "2.21.1", "tornado"),
    installed("tornado", "6.5"),
    installed("conda-only", "24.1"),
)


class ResolverWorld(Protocol):
    """A resolver and the index that it asks."""

    resolver: Resolver

    def publish(self, name: str, version: str, *requires: str) -> object: ...
    def withdraw(self, name: str, version: str) -> object: ...
    def break_down(self) -> None: ...


class MemoryWorld:
    """The in-memory double."""

    def __init__(self) -> None:
        self.resolver = MemoryResolver(protected=("jupyterhub", "jupyter-server", "jupyterlab"))
        self.publish = self.resolver.publish
        self.withdraw = self.resolver.withdraw

    def break_down(self) -> None:
        self.resolver.switches.failures["resolve"] = IndexUnavailable("The package index cannot be reached.")


class UvWorld:
    """uv, and a real index on loopback."""

    def __init__(self, index: IndexServer, cache: Path) -> None:
        self.index = index
        self.cache = cache
        self.resolver = self.make()

    def publish(self, name: str, version: str, *requires: str) -> object:
        return self.index.add_wheel(name, version, requires=requires)

    def withdraw(self, name: str, version: str) -> object:
        return self.index.remove(name, version)

    def break_down(self) -> None:
        self.index.behaviour.failures["/"] = 503

    def make(self, environ: dict[str, str] | None = None, url: str | None = None, **more: Any) -> UvResolver:
        """Another resolver on the same cache."""
        network = NetworkSettings.from_environment(
            environ or {}, index_url=url or self.index.url, extra_index_urls=more.pop("extra", None)
        )
        return UvResolver(network, self.cache, **{"protected": PROTECTED, "retries": 0, **more})


@pytest.fixture
def index() -> Iterator[IndexServer]:
    with IndexServer() as server:
        yield server


@pytest.fixture
def uv(index: IndexServer, tmp_path: Path) -> UvWorld:
    return UvWorld(index, tmp_path / "cache")


@pytest.fixture(params=["memory", "uv"])
def resolver_world(request: pytest.FixtureRequest) -> ResolverWorld:
    return MemoryWorld() if request.param == "memory" else request.getfixturevalue("uv")


async def resolve(
    world: ResolverWorld | Resolver,
    *requirements: str,
    base: BaseProbe | None = None,
    preferences: dict[str, str] | None = None,
) -> Lock:
    resolver: Any = getattr(world, "resolver", world)
    return await resolver.resolve(
        ResolveRequest(requirements=requirements, probe=base or base_with(*SERVER), preferences=preferences or {})
    )


async def failure(world: ResolverWorld | Resolver, *requirements: str, **more: Any) -> PrebuiltError:
    with pytest.raises(PrebuiltError) as caught:
        await resolve(world, *requirements, **more)
    return caught.value


# What every resolver does


async def test_nothing_asked_for_locks_nothing(resolver_world: ResolverWorld) -> None:
    assert await resolve(resolver_world) == Lock()


async def test_what_is_asked_for_comes_in_its_newest_version_with_what_it_needs(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("beta", "1.0")
    resolver_world.publish("beta", "2.0")
    resolver_world.publish("alpha", "1.0", "beta>=1")
    lock = await resolve(resolver_world, "alpha")
    assert lock.pins == {"alpha": "1.0", "beta": "2.0"}


async def test_the_lock_says_where_each_wheel_is_and_what_it_hashes_to(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("alpha", "1.0")
    (wheel,) = (await resolve(resolver_world, "alpha")).wheels
    assert wheel.filename == "alpha-1.0-py3-none-any.whl"
    assert wheel.url.endswith(wheel.filename)
    assert len(wheel.sha256) == 64
    assert wheel.size_bytes


async def test_the_same_question_gets_the_same_lock(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("beta", "1.0")
    resolver_world.publish("alpha", "1.0", "beta")
    assert await resolve(resolver_world, "alpha", "beta") == await resolve(resolver_world, "alpha")


async def test_what_the_base_satisfies_is_not_locked(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("tornado", "6.5")
    resolver_world.publish("tornado", "6.9")
    assert await resolve(resolver_world, "tornado>=6") == Lock()


async def test_a_package_of_the_base_stays_though_a_newer_one_exists(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("tornado", "6.9")
    resolver_world.publish("alpha", "1.0", "tornado")
    assert (await resolve(resolver_world, "alpha")).pins == {"alpha": "1.0"}


async def test_a_package_of_the_base_is_replaced_where_the_request_needs_another(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("tornado", "6.9")
    resolver_world.publish("alpha", "1.0", "tornado>=6.6")
    assert (await resolve(resolver_world, "alpha")).pins == {"alpha": "1.0", "tornado": "6.9"}


async def test_replacing_a_package_takes_those_along_that_would_break(resolver_world: ResolverWorld) -> None:
    base = base_with(installed("numpy", "1.0"), installed("scipy", "1.0", "numpy<2"))
    resolver_world.publish("numpy", "2.0")
    resolver_world.publish("scipy", "2.0", "numpy>=2")
    assert (await resolve(resolver_world, "numpy>=2", base=base)).pins == {"numpy": "2.0", "scipy": "2.0"}


async def test_a_request_that_would_break_a_package_of_the_base_fails(resolver_world: ResolverWorld) -> None:
    base = base_with(installed("numpy", "1.0"), installed("scipy", "1.0", "numpy<2"))
    resolver_world.publish("numpy", "2.0")
    error = await failure(resolver_world, "numpy>=2", base=base)
    assert isinstance(error, UnresolvableRequest)
    assert "numpy" in error.message


@pytest.mark.parametrize("requirement", ["jupyterhub==5", "jupyterhub<6", "jupyter-server>=3", "needs-old-hub"])
async def test_a_server_package_cannot_be_asked_for_in_another_version(
    resolver_world: ResolverWorld, requirement: str
) -> None:
    for name, version in (("jupyterhub", "5.0"), ("jupyterhub", "6.1.1"), ("jupyter-server", "3.0")):
        resolver_world.publish(name, version)
    resolver_world.publish("needs-old-hub", "1.0", "jupyterhub<6")
    error = await failure(resolver_world, requirement)
    assert isinstance(error, UnresolvableRequest)
    assert "jupyter" in error.message


async def test_what_a_server_package_needs_may_change_within_what_it_allows(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("tornado", "6.9")
    resolver_world.publish("tornado", "7.0")
    assert (await resolve(resolver_world, "tornado>6.5")).pins == {"tornado": "6.9"}
    assert isinstance(await failure(resolver_world, "tornado>=7"), UnresolvableRequest)


async def test_a_base_that_is_inconsistent_in_itself_can_be_added_to(resolver_world: ResolverWorld) -> None:
    base = base_with(installed("broken", "1.0", "not-there", "old<2", "present>=1"), installed("old", "3.0"), *SERVER)
    resolver_world.publish("alpha", "1.0")
    assert (await resolve(resolver_world, "alpha", base=base)).pins == {"alpha": "1.0"}


async def test_preferences_go_before_newer_versions(resolver_world: ResolverWorld) -> None:
    for version in ("1.0", "1.1", "2.0"):
        resolver_world.publish("alpha", version)
    assert (await resolve(resolver_world, "alpha", preferences={"alpha": "1.1"})).pins == {"alpha": "1.1"}


async def test_preferences_go_before_what_the_base_has(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("tornado", "6.4")
    assert (await resolve(resolver_world, "tornado", preferences={"tornado": "6.4"})).pins == {"tornado": "6.4"}


async def test_preferences_give_way_to_the_request_and_to_what_is_gone(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("alpha", "1.0")
    resolver_world.publish("alpha", "2.0")
    assert (await resolve(resolver_world, "alpha>=2", preferences={"alpha": "1.0"})).pins == {"alpha": "2.0"}
    resolver_world.withdraw("alpha", "2.0")
    assert (await resolve(resolver_world, "alpha", preferences={"alpha": "2.0", "gone": "1"})).pins == {"alpha": "1.0"}


async def test_a_preference_for_a_server_package_counts_for_nothing(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("alpha", "1.0")
    resolver_world.publish("jupyterhub", "5.0")
    assert (await resolve(resolver_world, "alpha", preferences={"jupyterhub": "5.0"})).pins == {"alpha": "1.0"}


async def test_an_unknown_package_is_named(resolver_world: ResolverWorld) -> None:
    error = await failure(resolver_world, "pandsa")
    assert isinstance(error, UnresolvableRequest)
    assert (error.cause, error.package) == (Kind.NO_SUCH_PACKAGE, "pandsa")
    assert error.message == "pandsa is not in the package index. Did you mean pandas?"


async def test_a_name_near_to_nothing_is_to_be_checked(resolver_world: ResolverWorld) -> None:
    assert (await failure(resolver_world, "no-such-thing-at-all")).message.endswith("Check the spelling.")


async def test_a_package_of_the_base_is_suggested(resolver_world: ResolverWorld) -> None:
    assert (await failure(resolver_world, "conda-ony")).message.endswith("Did you mean conda-only?")


async def test_a_version_that_does_not_exist_is_the_requests_fault(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("alpha", "1.0")
    error = await failure(resolver_world, "alpha==9")
    assert isinstance(error, UnresolvableRequest)
    assert "alpha" in error.message


async def test_an_index_that_does_not_answer_is_not_the_requests_fault(resolver_world: ResolverWorld) -> None:
    resolver_world.publish("alpha", "1.0")
    resolver_world.break_down()
    assert isinstance(await failure(resolver_world, "alpha"), IndexUnavailable)


# What uv makes of a base


@pytest.mark.parametrize("index_serves", ["json", "html"])
async def test_markers_are_those_of_the_base(uv: UvWorld, index_serves: str) -> None:
    uv.index.behaviour.html_only = index_serves == "html"
    uv.index.add_wheel("only-here", "1.0")
    uv.index.add_wheel("not-here", "1.0")
    uv.index.add_wheel("alpha", "1.0", requires=["only-here; python_version == '3.9'", "not-here; os_name == 'nt'"])
    markers = {**make_probe().markers, "python_version": "3.9", "python_full_version": "3.9.2"}
    base = base_with(python_version="3.9.2", abi="cp39", markers=markers)
    assert (await resolve(uv, "alpha", base=base)).pins == {"alpha": "1.0", "only-here": "1.0"}


async def test_the_wheel_is_the_most_specific_that_the_base_can_use(uv: UvWorld) -> None:
    for tags in ("py3-none-any", "cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_39_x86_64"):
        uv.index.add_wheel("alpha", "1.0", tags=tags)
    uv.index.add_wheel("alpha", "1.0", tags="cp312-cp312-manylinux_2_17_x86_64")
    (wheel,) = (await resolve(uv, "alpha")).wheels
    assert wheel.filename == "alpha-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"


async def test_a_newer_release_without_a_fitting_wheel_is_passed_over(uv: UvWorld) -> None:
    uv.index.add_wheel("alpha", "1.0")
    uv.index.add_wheel("alpha", "1.1", tags="cp311-cp311-win_amd64")
    uv.index.add_sdist("alpha", "1.2")
    assert (await resolve(uv, "alpha")).pins == {"alpha": "1.0"}


async def test_a_source_distribution_is_refused_and_not_even_fetched(uv: UvWorld) -> None:
    """To learn what it needs would be to run what is in it."""
    uv.index.add_sdist("alpha", "1.0")
    assert (await failure(uv, "alpha")).cause == Kind.SOURCE_ONLY
    assert uv.index.paths("/files/") == []


async def test_the_extras_of_a_base_package_can_be_asked_for(uv: UvWorld) -> None:
    base = base_with(installed("tool", "1.0", "alpha>=1; extra == 'more'", provides_extra=("more",)))
    uv.index.add_wheel("alpha", "1.0")
    uv.index.add_wheel("tool", "2.0")
    assert (await resolve(uv, "tool[more]", base=base)).pins == {"alpha": "1.0"}
    assert await resolve(uv, "tool", base=base) == Lock()


async def test_an_extra_that_the_base_never_met_is_not_installed_for_it(uv: UvWorld) -> None:
    base = base_with(
        installed("app", "1.0", "tool[more,half]>=1"),
        installed("tool", "1.0", "alpha; extra == 'more'", "beta; extra == 'half'", provides_extra=("more", "half")),
        installed("beta", "1.0"),
    )
    uv.index.add_wheel("alpha", "1.0")
    uv.index.add_wheel("gamma", "1.0")
    assert (await resolve(uv, "gamma", base=base)).pins == {"gamma": "1.0"}


async def test_what_the_base_says_of_a_version_counts_more_than_what_the_index_says(uv: UvWorld) -> None:
    base = base_with(installed("patched", "1.0"))
    uv.index.add_wheel("patched", "1.0", requires=["unwanted"])
    uv.index.add_wheel("unwanted", "1.0")
    uv.index.add_wheel("alpha", "1.0", requires=["patched"])
    assert (await resolve(uv, "alpha", base=base)).pins == {"alpha": "1.0"}


async def test_odd_versions_and_prereleases_of_the_base_do_no_harm(uv: UvWorld) -> None:
    base = base_with(
        installed("debian-thing", "1.0-2ubuntu~x", "nothing @ file:///nowhere"),
        installed("early", "2.0b1"),
        installed("local", "1.0+deb1", "debian-thing", "early"),
        installed("not a name", "1.0", "=== broken"),
        installed("forked", "1.0", "tool @ git+https://git.invalid/tool"),
        installed("tool", "1.0", "?? broken"),
    )
    uv.index.add_wheel("early", "1.0")
    uv.index.add_wheel("early", "2.0b2")
    uv.index.add_wheel("alpha", "1.0", requires=["local"])
    assert (await resolve(uv, "alpha", "early", base=base)).pins == {"alpha": "1.0"}


async def test_a_later_question_about_the_same_base_sees_what_was_published_since(uv: UvWorld) -> None:
    uv.index.add_wheel("alpha", "1.0")
    assert (await resolve(uv, "alpha")).pins == {"alpha": "1.0"}
    uv.index.add_wheel("alpha", "1.1")
    assert (await resolve(uv.make(), "alpha")).pins == {"alpha": "1.1"}


async def test_the_hubs_own_settings_of_uv_do_not_count(
    uv: UvWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "home/.config/uv/uv.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text('resolution = "lowest"\n')
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("UV_RESOLUTION", "lowest")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/")
    uv.index.add_wheel("alpha", "1.0")
    uv.index.add_wheel("alpha", "2.0")
    assert (await resolve(uv, "alpha")).pins == {"alpha": "2.0"}


def test_the_platforms_that_we_name_are_those_that_uv_knows(uv: UvWorld) -> None:
    """Every one of them is in uv's help, and no newer one is."""
    import re
    import subprocess

    import uv as uv_package

    text = subprocess.run(
        [uv_package.find_uv_bin(), "pip", "compile", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for machine in MACHINES:
        known = {int(minor) for minor in re.findall(rf"{machine}-manylinux_2_(\d+)", text)}
        assert known == set(MANYLINUX_MINORS)


@pytest.mark.parametrize(
    ("glibc", "platform"),
    [((2, 17), "2_17"), ((2, 27), "2_17"), ((2, 30), "2_28"), ((2, 36), "2_36"), ((2, 99), "2_40")],
)
def test_glibc_is_the_newest_that_uv_knows_and_the_base_has(glibc: tuple[int, int], platform: str) -> None:
    assert python_platform(base_with(glibc=glibc)) == f"x86_64-manylinux_{platform}"


@pytest.mark.parametrize("changes", [{"glibc": None}, {"glibc": (2, 12)}, {"machine": "s390x"}])
async def test_a_base_for_which_no_wheels_exist_is_refused(uv: UvWorld, changes: dict[str, Any]) -> None:
    assert isinstance(await failure(uv, "alpha", base=base_with(**changes)), BaseImageUnavailable)


# What users are told


def publish_troubles(index: IndexServer) -> None:
    """Packages that cannot be installed, each in its own way."""
    index.add_sdist("docx", "0.2.4")
    index.add_wheel("wants-docx", "1.0", requires=["docx"])
    index.add_wheel("mixed", "1.0")
    index.add_sdist("mixed", "2.0")
    index.add_wheel("other-python", "1.0", tags="cp312-cp312-manylinux_2_17_x86_64")
    index.add_wheel("windows", "1.0", tags="cp311-cp311-win_amd64")
    index.add_wheel("new-glibc", "1.0", tags="cp311-cp311-manylinux_2_39_x86_64")
    index.add_wheel("new-python", "1.0", python_requires=">=3.13")
    index.add_wheel("wants-absent", "1.0", requires=["absent>=2"])
    index.add_wheel("beta", "1.0")
    index.add_wheel("beta", "2.0")
    index.add_wheel("new-beta", "1.0", requires=["beta>=2"])
    index.add_wheel("old-beta", "1.0", requires=["beta<2"])
    index.add_wheel("needs-old-hub", "1.0", requires=["jupyterhub<6"])
    index.add_wheel("needs-new-tornado", "1.0", requires=["tornado>=7"])
    index.add_wheel("tornado", "7.0")
    index.add_wheel("jupyterhub", "5.0")
    index.add_wheel("pulled", "1.0", yanked="broken")
    index.add_wheel("linked", "1.0", requires=["thing @ http://127.0.0.1:1/thing-1.0-py3-none-any.whl"])


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        (["docx", "beta"], ["docx", "no wheel", "only source"]),
        (["mixed==2"], ["mixed 2.0", "no wheel", "only source"]),
        (["wants-docx"], ["docx", "only source", "wants-docx"]),
        (["other-python"], ["other-python", "no wheel for Python 3.11"]),
        (["windows"], ["windows", "no wheel for Linux on x86_64"]),
        (["new-glibc"], ["new-glibc", "no wheel for Linux"]),
        (["new-python"], ["new-python", "needs Python >=3.13", "3.11.2"]),
        (["wants-absent"], ["absent", "wants-absent"]),
        (["beta==9"], ["beta", "9"]),
        (["beta>=9"], ["beta", ">=9", "newest is 2.0"]),
        (["beta<0.5"], ["beta", "<0.5", "oldest is 1.0"]),
        (["new-beta", "old-beta"], ["new-beta needs beta>=2", "old-beta needs beta<2"]),
        (["new-beta", "beta<2"], ["new-beta needs beta>=2", "you ask for beta<2"]),
        (["jupyterhub==5"], ["jupyterhub==5", "server of this image needs jupyterhub 6.1.1"]),
        (["needs-old-hub"], ["needs-old-hub needs jupyterhub<6", "server of this image needs jupyterhub 6.1.1"]),
        (["needs-new-tornado"], ["needs-new-tornado needs tornado>=7", "jupyterlab", "tornado<7"]),
        (["pulled"], ["pulled 1.0", "withdrawn"]),
        (["linked"], ["linked", "outside the package index"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else None,
)
async def test_the_message_names_the_offender_and_the_detail_has_the_whole_story(
    uv: UvWorld, requirements: list[str], words: list[str]
) -> None:
    publish_troubles(uv.index)
    error = await failure(uv, *requirements)
    assert isinstance(error, UnresolvableRequest)
    assert [word for word in words if word not in error.message] == [], error.message
    assert len(error.message) < 300
    assert str(uv.cache) not in error.message
    assert len(error.detail) > 20


async def test_what_was_installed_before_is_suggested_for_a_misspelt_name(uv: UvWorld) -> None:
    async def seen() -> list[str]:
        return ["house-tools"]

    assert (await failure(uv.make(seen=seen), "house-tols")).message.endswith("Did you mean house-tools?")


async def test_a_memory_that_fails_hides_no_failure(uv: UvWorld) -> None:
    async def seen() -> list[str]:
        raise StorageFailure("The database cannot be used.")

    assert (await failure(uv.make(seen=seen), "house-tols")).cause == Kind.NO_SUCH_PACKAGE


# How uv is reached and held in check


async def test_credentials_in_the_index_url_work_and_are_in_no_lock(uv: UvWorld) -> None:
    uv.index.add_wheel("alpha", "1.0")
    uv.index.behaviour.credentials = ("me@corp", "p@ss:w/rd")
    url = uv.index.url_with_credentials("me%40corp", "p%40ss%3Aw%2Frd")
    (wheel,) = (await resolve(uv.make(url=url), "alpha")).wheels
    assert "@" not in wheel.url


async def test_a_token_in_the_index_url_works_and_is_in_no_lock_and_no_message(
    uv: UvWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the index writes it into the addresses of its files; the rest of their queries stays."""
    uv.index.add_wheel("alpha", "1.0")
    monkeypatch.setattr(
        uv.index, "file_url", lambda file: f"{uv.index.origin}/files/{file.filename}?id=7&token=s3cret-t0k"
    )
    resolver = uv.make(url=f"{uv.index.url}?token=s3cret-t0k")
    (wheel,) = (await resolve(resolver, "alpha")).wheels
    assert wheel.url == f"{uv.index.origin}/files/{wheel.filename}?id=7"
    assert {request.query for request in uv.index.requests if request.path == "/simple/alpha/"} == {"token=s3cret-t0k"}
    uv.index.behaviour.failures["/simple/"] = 503
    error = await failure(resolver, "beta")
    assert "s3cret" not in error.message + error.detail


async def test_an_index_on_the_network_does_not_send_the_hub_to_its_own_files(
    uv: UvWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file that it names is not read, be its hash right; an index that is a folder has nothing else."""
    wheel = uv.index.add_wheel("alpha", "1.0")
    (tmp_path / wheel.filename).write_bytes(wheel.content)
    folder = uv.index.export(tmp_path / "folder")
    monkeypatch.setattr(uv.index, "file_url", lambda file: (tmp_path / file.filename).as_uri())
    assert (await failure(uv, "alpha")).cause == Kind.INDEX_BROKEN
    assert (await resolve(uv.make(url=folder), "alpha")).pins == {"alpha": "1.0"}


async def test_the_cache_folder_is_the_hubs_alone(uv: UvWorld) -> None:
    uv.index.add_wheel("alpha", "1.0")
    await resolve(uv, "alpha")
    assert uv.cache.stat().st_mode & 0o777 == 0o700


async def test_a_netrc_file_works(uv: UvWorld, tmp_path: Path) -> None:
    uv.index.add_wheel("alpha", "1.0")
    uv.index.behaviour.credentials = ("me", "s3cret")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert (await resolve(uv.make({"HOME": str(tmp_path)}), "alpha")).pins == {"alpha": "1.0"}


@pytest.mark.parametrize("status", [401, 403, 407, 500, 503])
async def test_an_index_that_refuses_is_the_administrators_and_shows_no_credentials(uv: UvWorld, status: int) -> None:
    uv.index.add_wheel("alpha", "1.0")
    uv.index.behaviour.failures["/simple/alpha"] = status
    error = await failure(uv.make(url=uv.index.url_with_credentials("me", "s3cret")), "alpha")
    assert isinstance(error, IndexUnavailable)
    assert "127.0.0.1" not in error.message
    assert "s3cret" not in error.message + error.detail


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/simple/", "http://me:s3cret@no-such-host.invalid/simple/"])
async def test_an_index_that_is_not_there_is_the_administrators(uv: UvWorld, url: str) -> None:
    error = await failure(uv.make(url=url), "alpha")
    assert isinstance(error, IndexUnavailable)
    assert "s3cret" not in error.message + error.detail


async def test_an_index_that_serves_nonsense_is_the_administrators(uv: UvWorld) -> None:
    wheel = uv.index.add_wheel("alpha", "1.0")
    uv.index.behaviour.failures[f"/files/{wheel.filename}"] = 404
    assert isinstance(await failure(uv, "alpha"), IndexUnavailable)


async def test_an_extra_index_goes_first(uv: UvWorld) -> None:
    with IndexServer() as extra:
        extra.add_wheel("alpha", "1.0")
        uv.index.add_wheel("alpha", "2.0")
        uv.index.add_wheel("beta", "1.0")
        lock = await resolve(uv.make(extra=[extra.url]), "alpha", "beta")
    assert lock.pins == {"alpha": "1.0", "beta": "1.0"}


async def test_an_index_can_be_a_folder(uv: UvWorld, tmp_path: Path) -> None:
    uv.index.add_wheel("alpha", "1.0")
    (tmp_path / "index").mkdir()
    url = uv.index.export(tmp_path / "index")
    (wheel,) = (await resolve(uv.make(url=url), "alpha")).wheels
    assert wheel.url == f"{url}/alpha/{wheel.filename}"


async def test_an_index_with_a_private_authority_is_reached_through_a_proxy(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with IndexServer(authority=authority, host="index.test") as index:
        index.add_wheel("alpha", "1.0")
        world = UvWorld(index, tmp_path / "cache")
        with ProxyServer(hosts={"index.test": index.port}, credentials=("me", "s3cret")) as proxy:
            environ = {"HTTPS_PROXY": proxy.url_with_credentials(), "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
            assert (await resolve(world.make(environ), "alpha")).pins == {"alpha": "1.0"}
            assert set(proxy.tunnels()) == {f"index.test:{index.port}"}
            untrusted = await failure(world.make({"HTTPS_PROXY": proxy.url_with_credentials()}), "alpha")
            refused = await failure(world.make({**environ, "HTTPS_PROXY": proxy.url}), "alpha")
    assert isinstance(untrusted, IndexUnavailable)
    assert "certificate" in untrusted.message
    assert isinstance(refused, IndexUnavailable)


def processes_of(world: UvWorld) -> list[bytes]:
    """The command lines of the uv processes that work with this cache."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes()
        except OSError:
            continue
        if str(world.cache).encode() in line:
            lines.append(line)
    return lines


async def test_a_cancelled_resolution_ends_its_processes_and_nothing_secret_was_on_their_command_line(
    uv: UvWorld,
) -> None:
    uv.index.behaviour.silent.add("/simple/alpha")
    resolver = uv.make(url=uv.index.url_with_credentials("me", "s3cret"))
    task = asyncio.create_task(resolve(resolver, "alpha"))
    await asyncio.to_thread(uv.index.await_request, "/simple/alpha")
    lines = processes_of(uv)
    assert lines
    assert not any(b"s3cret" in line or b"alpha" in line for line in lines)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert processes_of(uv) == []


async def test_a_resolution_that_takes_too_long_is_ended(uv: UvWorld) -> None:
    uv.index.behaviour.silent.add("/simple/alpha")
    error = await failure(uv.make(timeout_seconds=0.5), "alpha")
    assert isinstance(error, BuildTimeout)
    assert processes_of(uv) == []


async def test_many_at_once_on_one_cache_agree(uv: UvWorld) -> None:
    uv.index.add_wheel("beta", "1.0")
    uv.index.add_wheel("alpha", "1.0", requires=["beta"])
    locks = await asyncio.gather(*(resolve(uv.make(), "alpha") for _ in range(4)))
    assert {tuple(lock.pins.items()) for lock in locks} == {(("alpha", "1.0"), ("beta", "1.0"))}


async def test_requirements_reach_uv_as_data_whatever_they_say(uv: UvWorld) -> None:
    """Nobody sends such a requirement through `environment.requirements`; it would still not be an option."""
    uv.index.add_wheel("alpha", "1.0")
    assert isinstance(await failure(uv, "alpha; python_version < '3' and os_name == '--help' or"), PrebuiltError)
