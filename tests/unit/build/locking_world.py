"""The world that the locksmith is tested in."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone

from prebuilt_spawner.adapters.memory import MemoryResolver
from prebuilt_spawner.build.events import BuildEvent
from prebuilt_spawner.build.locking import Locksmith
from prebuilt_spawner.build.provider import EnvironmentRequest, ProfileRequest
from prebuilt_spawner.environment.base import BaseImage, BaseProbe, InstalledDistribution, InstallScheme
from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.ledger import SqlLedger

SITE = "/usr/lib/python3.11/site-packages"


def base_image(digest: str = "1", reference: str = "base:1") -> BaseImage:
    return BaseImage(
        reference=reference,
        image_id="sha256:" + digest * 64,
        digest=digest * 64,
        diff_ids=("sha256:" + digest * 64,),
        config={},
        os="linux",
        architecture="amd64",
    )


def base_probe(**installed: str) -> BaseProbe:
    """A probe of a base that has these packages."""
    return BaseProbe(
        python_version="3.11.2",
        implementation="cpython",
        abi="cp311",
        cache_tag="cpython-311",
        machine="x86_64",
        glibc=(2, 36),
        interpreter="/usr/bin/python3",
        stdlib="/usr/lib/python3.11",
        virtual=False,
        markers={
            "implementation_name": "cpython",
            "implementation_version": "3.11.2",
            "os_name": "posix",
            "platform_machine": "x86_64",
            "platform_python_implementation": "CPython",
            "platform_release": "6.1",
            "platform_system": "Linux",
            "platform_version": "1",
            "python_full_version": "3.11.2",
            "python_version": "3.11",
            "sys_platform": "linux",
        },
        scheme=InstallScheme(purelib=SITE, platlib=SITE, headers="/usr/include", scripts="/usr/bin", data="/usr"),
        user="jovyan",
        uid=1000,
        gid=100,
        home="/home/jovyan",
        distributions={
            name: InstalledDistribution(
                name=name, version=version, location=SITE, metadata_directory=f"{name}-{version}.dist-info"
            )
            for name, version in installed.items()
        },
    )


class World:
    """A locksmith with an index that tests publish on, and a clock that moves at every look."""

    def __init__(self) -> None:
        self.resolver = MemoryResolver()
        self.time = datetime(2030, 1, 1, tzinfo=timezone.utc)
        self.ledger = SqlLedger("sqlite://", now=self.tick)
        self.locksmith = Locksmith(self.ledger, self.resolver)
        self.base = base_image()
        self.probe = base_probe()
        self.events: list[BuildEvent] = []

    def tick(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time

    @property
    def resolves(self) -> int:
        return len(self.resolver.requests)

    async def lock(self, user: str, *requirements: str, base: BaseImage | None = None, **more) -> Lock:
        request = EnvironmentRequest(user=user, requirements=requirements, base="base:1", **more)
        return await self.locksmith.lock_for(request, base or self.base, self.probe, report=self.events.append)

    async def pins(self, user: str, *requirements: str, **more) -> dict[str, str]:
        return (await self.lock(user, *requirements, **more)).pins


DATA = ProfileRequest(slug="data", requirements=("demo",))


async def until_resolving(world: World, times: int = 1) -> None:
    while world.resolves < times:  # the ledger's threads decide when
        await asyncio.sleep(0)


async def until_waiting(world: World, waiters: int) -> None:
    """Until so many have been told that it is being resolved."""
    while len(world.events) < waiters:
        await asyncio.sleep(0)
