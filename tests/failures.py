"""Every way in which an environment cannot be had, made to happen: real uv, a real index on loopback, real files.

async with FailureWorld(tmp_path) as world:
    error = await FAILURES["only source"].happen(world)
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import trustme

from prebuilt_spawner.adapters.docker_client import DockerClient, translated
from prebuilt_spawner.adapters.memory_compiler import MemoryCompiler
from prebuilt_spawner.adapters.network import NetworkSettings
from prebuilt_spawner.adapters.uv_resolver import UvResolver
from prebuilt_spawner.adapters.wheel_store import DiskWheelStore
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.failure import Kind
from prebuilt_spawner.build.interface import ResolveRequest
from prebuilt_spawner.environment.base import BaseImage, InstalledDistribution
from prebuilt_spawner.environment.lock import LockedWheel
from prebuilt_spawner.environment.policy import Policy, check_request, read_rules
from prebuilt_spawner.environment.requirements import parse_requirements
from prebuilt_spawner.errors import PrebuiltError
from tests.crafted_wheels import PublishedFile, build_wheel
from tests.index_server import IndexServer
from tests.unit.environment.probes import SITE, make_probe

if TYPE_CHECKING:
    from typing_extensions import Self

NOBODY = "http://127.0.0.1:1"
"""An address where nothing answers."""

BASE = BaseImage(
    reference="base:1",
    image_id="sha256:" + "a" * 64,
    digest="b" * 64,
    diff_ids=("sha256:" + "1" * 64,),
    config={},
    os="linux",
    architecture="amd64",
)
PROBE = make_probe(
    distributions={
        name: InstalledDistribution(
            name=name,
            version=version,
            location=SITE,
            metadata_directory=f"{name}-{version}.dist-info",
            requires=requires,
        )
        for name, version, requires in (
            ("jupyterhub", "6.1.1", ("tornado>=6.4",)),
            ("jupyterlab", "4.5.0", ("tornado<7",)),
            ("tornado", "6.5", ()),
        )
    }
)


class FailureWorld:
    """An index, a resolver and a wheel store with a folder of their own; an async context manager.

    Args:
        folder: Where the cache goes.
        environ: The hub's environment: proxies, certificates, netrc.
        user, password: What the index URL holds; none where they are empty.
        authority: Makes the index speak TLS.
    """

    def __init__(
        self,
        folder: Path,
        environ: dict[str, str] | None = None,
        *,
        user: str = "",
        password: str = "",
        query: str = "",
        authority: trustme.CA | None = None,
    ) -> None:
        self.folder = folder
        self.index = IndexServer(authority=authority)
        self.behaviour = self.index.behaviour
        url = self.index.url_with_credentials(user, password) if user else self.index.url
        self.network = self.settings(f"{url}{query}", environ)
        self._stores: list[DiskWheelStore] = []

    def settings(self, url: str, environ: dict[str, str] | None = None) -> NetworkSettings:
        return NetworkSettings.from_environment(environ or {}, index_url=url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.index.release()
        for store in self._stores:
            await store.close()
        self.index.close()

    async def resolve(self, *requirements: str, network: NetworkSettings | None = None, **more: Any) -> Any:
        """Ask uv."""
        resolver = UvResolver(
            network or self.network,
            self.folder / "cache",
            **{"retries": 0, "protected": ("jupyterhub", "jupyterlab"), **more},
        )
        return await resolver.resolve(ResolveRequest(requirements=requirements, probe=PROBE))

    async def install(self, file: PublishedFile) -> Any:
        """Download a published file and prepare it."""
        wheel = LockedWheel(
            name=file.name,
            version=file.version,
            filename=file.filename,
            url=self.index.file_url(file),
            sha256=file.sha256,
            size_bytes=file.size_bytes,
        )
        store = DiskWheelStore(
            self.network, self.folder / "cache", MemoryCompiler(), retries=0, workers=1, silence_seconds=0.3
        )
        self._stores.append(store)
        await store.fetch([wheel], report=ignore)
        return await store.fragments([wheel], BASE, PROBE, report=ignore)


@dataclass(frozen=True, kw_only=True)
class FailureCase:
    """A failure, and what is said of it.

    Attributes:
        act: Makes it happen, and raises.
        kind: Its cause.
        status: Over REST.
        package: The package that it is about.
        words: What the message says, among other things.
    """

    act: Callable[[FailureWorld], Awaitable[Any]]
    kind: Kind
    status: int
    package: str = ""
    words: tuple[str, ...] = ()

    async def happen(self, world: FailureWorld) -> PrebuiltError:
        """The error."""
        try:
            await self.act(world)
        except PrebuiltError as error:
            return error
        raise AssertionError("nothing failed")


def too_large_wheel() -> PublishedFile:
    """A small archive that announces more than any wheel has."""
    filename, content, _ = build_wheel("huge", "1.0", files={f"huge/{number}.py": "" for number in range(4)})
    announced = bytearray(content)
    at = announced.find(b"PK\x01\x02")
    while at != -1:
        struct.pack_into("<I", announced, at + 24, 0xFFFFFFFE)
        at = announced.find(b"PK\x01\x02", at + 4)
    return PublishedFile(name="huge", version="1.0", filename=filename, content=bytes(announced))


async def _no_such_package(world: FailureWorld) -> None:
    await world.resolve("pandsa")


async def _dependency_is_nowhere(world: FailureWorld) -> None:
    world.index.add_wheel("wants-absent", "1.0", requires=["absent>=2"])
    await world.resolve("wants-absent")


async def _no_such_version(world: FailureWorld) -> None:
    world.index.add_wheel("beta", "1.0")
    await world.resolve("beta==9")


async def _conflict(world: FailureWorld) -> None:
    world.index.add_wheel("beta", "1.0")
    world.index.add_wheel("beta", "2.0")
    world.index.add_wheel("new-beta", "1.0", requires=["beta>=2"])
    world.index.add_wheel("old-beta", "1.0", requires=["beta<2"])
    await world.resolve("new-beta", "old-beta")


async def _conflict_with_the_server(world: FailureWorld) -> None:
    world.index.add_wheel("jupyterhub", "5.0")
    world.index.add_wheel("old-hub", "1.0", requires=["jupyterhub<6"])
    await world.resolve("old-hub")


async def _only_source(world: FailureWorld) -> None:
    world.index.add_sdist("legacy", "0.2")
    await world.resolve("legacy")


async def _only_source_of_a_namesake(world: FailureWorld) -> None:
    world.index.add_sdist("sklearn", "0.0")
    await world.resolve("sklearn")


async def _other_python(world: FailureWorld) -> None:
    world.index.add_wheel("fresh", "1.0", python_requires=">=3.13")
    await world.resolve("fresh")


async def _wheel_for_another_python(world: FailureWorld) -> None:
    world.index.add_wheel("compiled", "1.0", tags="cp312-cp312-manylinux_2_17_x86_64")
    await world.resolve("compiled")


async def _wheel_for_another_platform(world: FailureWorld) -> None:
    world.index.add_wheel("windows", "1.0", tags="cp311-cp311-win_amd64")
    await world.resolve("windows")


async def _withdrawn(world: FailureWorld) -> None:
    world.index.add_wheel("pulled", "1.0", yanked="broken")
    await world.resolve("pulled")


async def _outside_the_index(world: FailureWorld) -> None:
    world.index.add_wheel("linked", "1.0", requires=[f"thing @ {NOBODY}/thing-1.0-py3-none-any.whl"])
    await world.resolve("linked")


async def _index_is_down(world: FailureWorld) -> None:
    await world.resolve("alpha", network=world.settings(f"{NOBODY}/simple/"))


async def _index_is_broken(world: FailureWorld) -> None:
    world.index.add_wheel("alpha", "1.0")
    world.behaviour.failures["/simple/"] = 500
    await world.resolve("alpha")


async def _index_talks_nonsense(world: FailureWorld) -> None:
    world.index.add_wheel("alpha", "1.0")
    world.behaviour.nonsense.add("/simple/")
    await world.resolve("alpha")


async def _index_is_silent(world: FailureWorld) -> None:
    world.index.add_wheel("alpha", "1.0")
    world.behaviour.silent.add("/simple/")
    await world.resolve("alpha", request_timeout_seconds=1)


async def _index_refuses_credentials(world: FailureWorld) -> None:
    world.index.add_wheel("alpha", "1.0")
    world.behaviour.credentials = ("me", "right")
    await world.resolve("alpha")


async def _resolving_takes_too_long(world: FailureWorld) -> None:
    world.index.add_wheel("alpha", "1.0")
    world.behaviour.silent.add("/simple/")
    await world.resolve("alpha", timeout_seconds=0.5)


async def _certificate_is_not_trusted(world: FailureWorld) -> None:
    async with FailureWorld(world.folder, authority=trustme.CA()) as other:
        await other.install(other.index.add_wheel("alpha", "1.0"))


async def _certificate_is_not_trusted_by_uv(world: FailureWorld) -> None:
    async with FailureWorld(world.folder, authority=trustme.CA()) as other:
        await other.resolve("alpha")


async def _wrong_hash(world: FailureWorld) -> None:
    file = world.index.add_wheel("alpha", "1.0")
    world.behaviour.wrong_content.add(file.filename)
    await world.install(file)


async def _file_is_missing(world: FailureWorld) -> None:
    file = world.index.add_wheel("alpha", "1.0")
    world.behaviour.missing.add(file.filename)
    await world.install(file)


async def _download_stalls(world: FailureWorld) -> None:
    file = world.index.add_wheel("alpha", "1.0")
    world.behaviour.stalled.add(file.filename)
    await world.install(file)


async def _download_is_refused(world: FailureWorld) -> None:
    world.behaviour.credentials = ("me", "right")
    await world.install(world.index.add_wheel("alpha", "1.0"))


async def _server_of_files_is_broken(world: FailureWorld) -> None:
    world.behaviour.failures["/files/"] = 503
    await world.install(world.index.add_wheel("alpha", "1.0"))


async def _server_of_files_is_down(world: FailureWorld) -> None:
    file = world.index.add_wheel("alpha", "1.0")
    world.index.close()
    await world.install(file)


async def _too_large(world: FailureWorld) -> None:
    await world.install(world.index.add_file(too_large_wheel()))


async def _no_wheel_at_all(world: FailureWorld) -> None:
    file = PublishedFile(name="odd", version="1.0", filename="odd-1.0-py3-none-any.whl", content=b"what?" * 50)
    await world.install(world.index.add_file(file))


async def _engine_is_gone(world: FailureWorld) -> None:
    client = DockerClient({"base_url": f"unix://{world.folder}/docker.sock", "version": "1.41"})
    try:
        await client.run(lambda api, _: api.ping())
    finally:
        await client.close()


async def _engine_refuses(world: FailureWorld) -> None:
    with translated():
        raise _said_by_the_engine("invalid diffID for layer 3: expected sha256:1, got sha256:2")


async def _engine_disk_is_full(world: FailureWorld) -> None:
    with translated():
        raise _said_by_the_engine("write /var/lib/docker/tmp/x: no space left on device")


def _said_by_the_engine(words: str) -> Exception:
    from docker.errors import APIError

    return APIError(words)


async def _policy(world: FailureWorld) -> None:
    check_request(
        Policy(allow_custom_packages=True, denied_packages=read_rules(["alpha"])), parse_requirements("alpha")
    )


async def _malformed(world: FailureWorld) -> None:
    parse_requirements("git+https://me:s3cret@host.test/x")


FAILURES = {
    "no such package": FailureCase(
        act=_no_such_package, kind=Kind.NO_SUCH_PACKAGE, status=422, package="pandsa", words=("Did you mean pandas?",)
    ),
    "a dependency is nowhere": FailureCase(
        act=_dependency_is_nowhere,
        kind=Kind.NO_SUCH_PACKAGE,
        status=422,
        package="absent",
        words=("wants-absent needs it", "Leave wants-absent out"),
    ),
    "no such version": FailureCase(
        act=_no_such_version, kind=Kind.NO_SUCH_VERSION, status=422, package="beta", words=("beta", "9")
    ),
    "conflict": FailureCase(
        act=_conflict,
        kind=Kind.CONFLICT,
        status=422,
        package="beta",
        words=("new-beta needs beta>=2", "old-beta needs beta<2"),
    ),
    "conflict with the server": FailureCase(
        act=_conflict_with_the_server,
        kind=Kind.CONFLICT,
        status=422,
        package="old-hub",
        words=("old-hub needs jupyterhub<6", "server of this image needs jupyterhub 6.1.1"),
    ),
    "only source": FailureCase(
        act=_only_source, kind=Kind.SOURCE_ONLY, status=422, package="legacy", words=("no wheel, only source",)
    ),
    "only source of a namesake": FailureCase(
        act=_only_source_of_a_namesake,
        kind=Kind.SOURCE_ONLY,
        status=422,
        package="sklearn",
        words=("Did you mean scikit-learn?",),
    ),
    "other Python": FailureCase(
        act=_other_python, kind=Kind.OTHER_PYTHON, status=422, package="fresh", words=("Python >=3.13", "3.11.2")
    ),
    "wheel for another Python": FailureCase(
        act=_wheel_for_another_python,
        kind=Kind.NO_FITTING_WHEEL,
        status=422,
        package="compiled",
        words=("no wheel for Python 3.11",),
    ),
    "wheel for another platform": FailureCase(
        act=_wheel_for_another_platform,
        kind=Kind.NO_FITTING_WHEEL,
        status=422,
        package="windows",
        words=("no wheel for Linux on x86_64",),
    ),
    "withdrawn": FailureCase(act=_withdrawn, kind=Kind.WITHDRAWN, status=422, package="pulled", words=("withdrawn",)),
    "outside the index": FailureCase(
        act=_outside_the_index, kind=Kind.OUTSIDE_INDEX, status=422, package="linked", words=("outside the package",)
    ),
    "too large": FailureCase(act=_too_large, kind=Kind.TOO_LARGE, status=422, package="huge", words=("too large",)),
    "no wheel at all": FailureCase(
        act=_no_wheel_at_all, kind=Kind.UNBUILDABLE, status=422, package="odd", words=("not a readable archive",)
    ),
    "policy": FailureCase(act=_policy, kind=Kind.POLICY, status=403, words=("alpha",)),
    "malformed": FailureCase(act=_malformed, kind=Kind.MALFORMED, status=400, words=("Packages come from the index",)),
    "index is down": FailureCase(
        act=_index_is_down, kind=Kind.INDEX_UNREACHABLE, status=503, words=("cannot be reached",)
    ),
    "index is broken": FailureCase(
        act=_index_is_broken, kind=Kind.INDEX_BROKEN, status=503, words=("does not answer as it should",)
    ),
    "index talks nonsense": FailureCase(
        act=_index_talks_nonsense, kind=Kind.INDEX_BROKEN, status=503, words=("does not answer as it should",)
    ),
    "index is silent": FailureCase(
        act=_index_is_silent, kind=Kind.INDEX_SILENT, status=503, words=("does not answer.",)
    ),
    "index refuses credentials": FailureCase(
        act=_index_refuses_credentials, kind=Kind.INDEX_CREDENTIALS, status=503, words=("refused this hub's",)
    ),
    "resolving takes too long": FailureCase(
        act=_resolving_takes_too_long, kind=Kind.TIMEOUT, status=504, words=("took too long",)
    ),
    "certificate is not trusted": FailureCase(
        act=_certificate_is_not_trusted,
        kind=Kind.INDEX_CERTIFICATE,
        status=503,
        package="alpha",
        words=("certificate is not trusted",),
    ),
    "certificate is not trusted by uv": FailureCase(
        act=_certificate_is_not_trusted_by_uv,
        kind=Kind.INDEX_CERTIFICATE,
        status=503,
        words=("certificate is not trusted",),
    ),
    "wrong hash": FailureCase(
        act=_wrong_hash, kind=Kind.HASH_MISMATCH, status=503, package="alpha", words=("another file for alpha 1.0",)
    ),
    "file is missing": FailureCase(
        act=_file_is_missing, kind=Kind.FILE_MISSING, status=503, package="alpha", words=("not serve alpha 1.0",)
    ),
    "download stalls": FailureCase(
        act=_download_stalls, kind=Kind.INDEX_SILENT, status=503, package="alpha", words=("stopped sending alpha 1.0",)
    ),
    "download is refused": FailureCase(
        act=_download_is_refused,
        kind=Kind.INDEX_CREDENTIALS,
        status=503,
        package="alpha",
        words=("refused this hub's",),
    ),
    "server of files is broken": FailureCase(
        act=_server_of_files_is_broken,
        kind=Kind.INDEX_BROKEN,
        status=503,
        package="alpha",
        words=("does not deliver alpha 1.0",),
    ),
    "server of files is down": FailureCase(
        act=_server_of_files_is_down,
        kind=Kind.INDEX_UNREACHABLE,
        status=503,
        package="alpha",
        words=("cannot be reached for alpha 1.0",),
    ),
    "engine is gone": FailureCase(
        act=_engine_is_gone, kind=Kind.ENGINE_UNREACHABLE, status=503, words=("engine cannot be reached",)
    ),
    "engine refuses": FailureCase(act=_engine_refuses, kind=Kind.ENGINE, status=503, words=("engine could not",)),
    "engine's disk is full": FailureCase(
        act=_engine_disk_is_full, kind=Kind.ENGINE_DISK_FULL, status=503, words=("engine is full",)
    ),
}
