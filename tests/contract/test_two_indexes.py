"""Dependency confusion: a private and a public index offer one name. Which of them wins, whatever the versions are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from prebuilt_spawner.adapters.network import NetworkSettings
from prebuilt_spawner.adapters.uv_resolver import UvResolver
from prebuilt_spawner.build.interface import ResolveRequest
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.errors import IndexUnavailable, UnresolvableRequest
from tests.index_server import IndexServer
from tests.unit.environment.probes import make_probe


@dataclass
class Indexes:
    """A private index, whose `acme-tools` the public one has too, in a newer version that somebody else put there."""

    private: IndexServer
    public: IndexServer
    cache: Path

    async def lock(
        self,
        *requirements: str,
        extra: tuple[str, ...] | None = None,
        url: str = "",
        environ: dict[str, str] | None = None,
    ) -> Lock:
        """With the private index in `extra_index_urls` and the public one as `index_url`, unless said otherwise."""
        network = NetworkSettings.from_environment(
            environ or {},
            index_url=url or self.public.url,
            extra_index_urls=(self.private.url,) if extra is None else extra,
        )
        resolver = UvResolver(network, self.cache, retries=0)
        return await resolver.resolve(ResolveRequest(requirements=requirements, probe=make_probe()))

    def from_private(self, lock: Lock, name: str = "acme-tools") -> bool:
        (wheel,) = (wheel for wheel in lock.wheels if wheel.name == name)
        assert wheel.url.startswith((self.private.origin, self.public.origin))
        return wheel.url.startswith(self.private.origin)


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[Indexes]:
    with IndexServer() as private, IndexServer() as public:
        private.add_wheel("acme-tools", "1.0", files={"acme_tools.py": "ours = True\n"})
        public.add_wheel("acme-tools", "99.0", files={"acme_tools.py": "ours = False\n"})
        public.add_wheel("wanted", "1.0", requires=["acme-tools"])
        public.add_wheel("other", "1.0")
        yield Indexes(private, public, tmp_path / "cache")


async def test_the_private_index_wins_though_the_public_one_has_a_newer_version(indexes: Indexes) -> None:
    """By name and hash; the public index is not even asked for it."""
    lock = await indexes.lock("acme-tools", "other")
    assert lock.pins == {"acme-tools": "1.0", "other": "1.0"}
    assert indexes.from_private(lock)
    assert not indexes.from_private(lock, "other")
    assert not [path for path in indexes.public.paths("/") if "acme" in path]


async def test_it_wins_for_what_a_public_package_depends_on_too(indexes: Indexes) -> None:
    lock = await indexes.lock("wanted")
    assert lock.pins == {"acme-tools": "1.0", "wanted": "1.0"}
    assert indexes.from_private(lock)


async def test_a_version_that_only_the_public_index_has_is_not_taken(indexes: Indexes) -> None:
    """A request for it is refused instead."""
    with pytest.raises(UnresolvableRequest, match="acme-tools"):
        await indexes.lock("acme-tools>=2")
    indexes.public.add_wheel("greedy", "1.0", requires=["acme-tools>=99"])
    with pytest.raises(UnresolvableRequest):
        await indexes.lock("greedy")


async def test_a_private_package_without_a_fitting_wheel_is_not_taken_from_the_public_index(indexes: Indexes) -> None:
    indexes.private.add_wheel("acme-native", "1.0", tags="cp311-cp311-win_amd64")
    indexes.public.add_wheel("acme-native", "99.0")
    with pytest.raises(UnresolvableRequest, match="acme-native"):
        await indexes.lock("acme-native")


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_while_the_private_index_fails_nothing_is_taken_from_the_public_one(
    indexes: Indexes, status: int
) -> None:
    """Whoever can make it fail, or takes its credentials away, gets nobody's package in its place."""
    indexes.private.behaviour.failures["/simple/"] = status
    with pytest.raises(IndexUnavailable):
        await indexes.lock("acme-tools")


async def test_a_private_index_that_is_not_there_is_not_passed_over(indexes: Indexes) -> None:
    with pytest.raises(IndexUnavailable):
        await indexes.lock("acme-tools", extra=("http://127.0.0.1:1/simple/",))


async def test_a_name_that_the_private_index_does_not_know_is_the_public_ones(indexes: Indexes) -> None:
    """So a name that has gone from the private index can be taken by whoever registers it in public."""
    indexes.private.remove("acme-tools", "1.0")
    lock = await indexes.lock("acme-tools")
    assert lock.pins == {"acme-tools": "99.0"}


async def test_of_several_extra_indexes_the_first_that_has_the_name_wins(indexes: Indexes) -> None:
    with IndexServer() as second:
        second.add_wheel("acme-tools", "2.0")
        second.add_wheel("second-only", "1.0")
        lock = await indexes.lock("acme-tools", "second-only", extra=(indexes.private.url, second.url))
        assert lock.pins == {"acme-tools": "1.0", "second-only": "1.0"}
        assert (await indexes.lock("acme-tools", extra=(second.url, indexes.private.url))).pins == {"acme-tools": "2.0"}


async def test_the_wrong_way_round_the_public_index_wins(indexes: Indexes) -> None:
    """The how-to warns of it: `extra_index_urls` go before `index_url`."""
    lock = await indexes.lock("acme-tools", extra=(indexes.public.url,), url=indexes.private.url)
    assert lock.pins == {"acme-tools": "99.0"}


async def test_the_private_index_alone_is_the_only_one(indexes: Indexes) -> None:
    with pytest.raises(UnresolvableRequest, match="other"):
        await indexes.lock("other", extra=(), url=indexes.private.url)


@pytest.mark.parametrize("strategy", ["unsafe-best-match", "unsafe-first-match"])
async def test_the_hubs_environment_does_not_change_which_one_wins(indexes: Indexes, strategy: str) -> None:
    lock = await indexes.lock("acme-tools", environ={"UV_INDEX_STRATEGY": strategy})
    assert indexes.from_private(lock)
