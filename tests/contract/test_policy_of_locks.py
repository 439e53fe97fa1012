"""What policy keeps out, with uv and a real index: what it resolves to is what is checked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from prebuilt_spawner.adapters.network import NetworkSettings
from prebuilt_spawner.adapters.uv_resolver import UvResolver
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.locking import Locksmith
from prebuilt_spawner.build.provider import EnvironmentRequest, ProfileRequest
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.environment.policy import Policy, check_request, read_rules
from prebuilt_spawner.environment.requirements import merge_requirements, parse_requirements
from prebuilt_spawner.errors import PolicyRefusal
from prebuilt_spawner.ledger import SqlLedger
from tests.index_server import IndexServer
from tests.unit.build.locking_world import base_image
from tests.unit.environment.probes import make_probe

DATES = ProfileRequest(slug="dates", requirements=("python-dateutil",))


@pytest.fixture
def index() -> Iterator[IndexServer]:
    with IndexServer() as server:
        server.add_wheel("six", "1.17")
        server.add_wheel("python-dateutil", "2.9", requires=["six>=1.5"])
        server.add_wheel("pandas", "2.2", requires=["python-dateutil"])
        server.add_wheel("attrs", "25.1")
        yield server


@pytest.fixture
async def smith(index: IndexServer, tmp_path: Path) -> AsyncIterator[Locksmith]:
    network = NetworkSettings.from_environment({}, index_url=index.url, extra_index_urls=())
    ledger = SqlLedger("sqlite://")
    smith = Locksmith(ledger, UvResolver(network, tmp_path / "cache", retries=0))
    yield smith
    await smith.close()
    await ledger.close()


async def lock(smith: Locksmith, text: str, *, profile: ProfileRequest | None = None, **limits) -> Lock:
    """As a start does it: the request is checked, then what it resolves to."""
    rules = {name: read_rules(value) for name, value in limits.items() if name.endswith("ed_packages")}
    policy = Policy(allow_custom_packages=True, **{**limits, **rules})
    own = parse_requirements(text)
    check_request(policy, own, user_name="ada")
    requirements = merge_requirements(profile.requirements if profile else (), own)
    request = EnvironmentRequest(user="ada", requirements=requirements, base="base:1", profile=profile, policy=policy)
    return await smith.lock_for(request, base_image(), make_probe(), report=ignore)


async def test_a_denied_package_does_not_come_in_however_deep_it_lies(smith: Locksmith, index: IndexServer) -> None:
    """Nothing is downloaded for it."""
    for _ in range(2):
        with pytest.raises(PolicyRefusal, match=r"six 1\.17 is not allowed for ada: use attrs\. pandas, which you"):
            await lock(smith, "pandas", denied_packages={"six": "use attrs"})
    assert not [path for path in index.paths("/files/") if path.endswith(".whl")]
    assert (await lock(smith, "pandas", denied_packages={"six<1.17": "old"})).pins["six"] == "1.17"


async def test_a_list_of_what_is_allowed_brings_what_that_needs(smith: Locksmith) -> None:
    assert set((await lock(smith, "pandas", allowed_packages=["pandas"])).pins) == {"pandas", "python-dateutil", "six"}
    with pytest.raises(PolicyRefusal, match="six is not among"):
        await lock(smith, "six", allowed_packages=["pandas"])


async def test_a_profile_keeps_what_users_may_not_add(smith: Locksmith) -> None:
    assert set((await lock(smith, "attrs", profile=DATES, denied_packages=["six"])).pins) == {
        "attrs",
        "python-dateutil",
        "six",
    }
    with pytest.raises(PolicyRefusal, match=r"six 1\.17 .* pandas, which you asked for"):
        await lock(smith, "pandas", denied_packages=["six"])


async def test_what_is_too_large_is_known_without_a_download(smith: Locksmith, index: IndexServer) -> None:
    with pytest.raises(PolicyRefusal, match=r"The largest: .*pandas 2\.2"):
        await lock(smith, "pandas", max_environment_bytes=10)
    assert not [path for path in index.paths("/files/") if path.endswith(".whl")]
