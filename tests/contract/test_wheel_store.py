"""What a wheel store promises, on the in-memory double and on the hub's disk with an index on loopback."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
import trustme

from prebuilt_spawner.adapters import wheel_download
from prebuilt_spawner.adapters.cache_limit import enforce
from prebuilt_spawner.adapters.memory import MemoryWheelStore
from prebuilt_spawner.adapters.memory_compiler import MemoryCompiler
from prebuilt_spawner.adapters.network import NetworkSettings
from prebuilt_spawner.adapters.wheel_store import DiskWheelStore
from prebuilt_spawner.build.events import BuildEvent, Phase, ignore
from prebuilt_spawner.build.interface import WheelStore
from prebuilt_spawner.environment.base import BaseImage
from prebuilt_spawner.environment.lock import LockedWheel
from prebuilt_spawner.errors import (
    EngineUnavailable,
    IndexUnavailable,
    PolicyRefusal,
    PrebuiltError,
    StorageFailure,
    SurroundingsError,
    UnbuildableEnvironment,
)
from prebuilt_spawner.image.fragment import Fragment
from tests.index_server import IndexServer, ProxyServer, PublishedFile
from tests.unit.environment.probes import SITE, make_probe

PROBE = make_probe()
BASE = BaseImage(
    reference="base:1",
    image_id="sha256:" + "a" * 64,
    digest="b" * 64,
    diff_ids=("sha256:" + "1" * 64,),
    config={},
    os="linux",
    architecture="amd64",
)


class StoreWorld(Protocol):
    """A wheel store and the index that it downloads from."""

    store: WheelStore

    def publish(self, name: str, version: str = "1.0") -> LockedWheel: ...
    def withdraw(self, wheel: LockedWheel) -> None: ...
    def publish_again(self, wheel: LockedWheel) -> None: ...
    def publish_malformed(self, name: str) -> LockedWheel: ...


class MemoryWorld:
    """The in-memory double."""

    def __init__(self) -> None:
        self.store = MemoryWheelStore()

    def publish(self, name: str, version: str = "1.0") -> LockedWheel:
        filename = f"{name}-{version}-py3-none-any.whl"
        return LockedWheel(
            name=name,
            version=version,
            filename=filename,
            url=f"https://index.example/{filename}",
            sha256=f"{abs(hash(filename)):064x}",
            size_bytes=1000,
        )

    def withdraw(self, wheel: LockedWheel) -> None:
        self.store.bad_wheels[wheel.name] = IndexUnavailable("gone")

    def publish_again(self, wheel: LockedWheel) -> None:
        del self.store.bad_wheels[wheel.name]

    def publish_malformed(self, name: str) -> LockedWheel:
        wheel = self.publish(name)
        self.store.fetched.add(wheel.sha256)
        self.store.bad_wheels[name] = UnbuildableEnvironment("malformed")
        return wheel


class DiskWorld:
    """The store on disk, and a real index on loopback."""

    def __init__(self, index: IndexServer, cache: Path) -> None:
        self.index = index
        self.cache = cache
        self.stores: list[DiskWheelStore] = []
        self.compiler = MemoryCompiler()
        self.store = self.make()

    def make(self, environ: dict[str, str] | None = None, **more: Any) -> DiskWheelStore:
        """Another store on the same folder."""
        network = NetworkSettings.from_environment(
            environ or {}, index_url=more.pop("url", self.index.url), extra_index_urls=None
        )
        store = DiskWheelStore(network, self.cache, self.compiler, **{"retries": 0, "workers": 1, **more})
        self.stores.append(store)
        return store

    def locked(self, file: PublishedFile, **changes: Any) -> LockedWheel:
        """A published file as a lock has it."""
        wheel = LockedWheel(
            name=file.name,
            version=file.version,
            filename=file.filename,
            url=self.index.file_url(file),
            sha256=file.sha256,
            size_bytes=file.size_bytes,
        )
        return replace(wheel, **changes)

    def publish(self, name: str, version: str = "1.0", **more: Any) -> LockedWheel:
        return self.locked(self.index.add_wheel(name, version, **more))

    def withdraw(self, wheel: LockedWheel) -> None:
        self.index.behaviour.missing.add(wheel.filename)

    def publish_again(self, wheel: LockedWheel) -> None:
        self.index.behaviour.missing.discard(wheel.filename)

    def publish_malformed(self, name: str) -> LockedWheel:
        return self.locked(
            self.index.add_file(
                PublishedFile(
                    name=name, version="1.0", filename=f"{name}-1.0-py3-none-any.whl", content=b"not an archive" * 50
                )
            )
        )

    def wheel_path(self, wheel: LockedWheel) -> Path:
        return self.cache / "wheels" / wheel.sha256[:2] / wheel.sha256 / wheel.filename

    def leftovers(self) -> list[Path]:
        """Files that are half made."""
        return [path for path in self.cache.rglob(".*") if path.is_file()]

    def downloads(self, wheel: LockedWheel) -> int:
        return self.index.paths("/files/").count(f"/files/{wheel.filename}")


@pytest.fixture
def index() -> Iterator[IndexServer]:
    with IndexServer() as server:
        yield server


@pytest.fixture
async def disk(index: IndexServer, tmp_path: Path) -> AsyncIterator[DiskWorld]:
    world = DiskWorld(index, tmp_path / "cache")
    yield world
    index.release()
    for store in world.stores:
        await store.close()


@pytest.fixture(params=["memory", "disk"])
async def store_world(request: pytest.FixtureRequest, index: IndexServer, tmp_path: Path) -> AsyncIterator[StoreWorld]:
    world = MemoryWorld() if request.param == "memory" else DiskWorld(index, tmp_path / "cache")
    yield world
    await world.store.close()


async def failure(awaitable: Any) -> PrebuiltError:
    with pytest.raises(PrebuiltError) as caught:
        await awaitable
    return caught.value


# What every store does


async def test_each_wheel_becomes_a_fragment_in_the_wheels_order(store_world: StoreWorld) -> None:
    wheels = [store_world.publish(name) for name in ("zeta", "alpha", "mid")]
    await store_world.store.fetch(wheels, report=ignore)
    fragments = await store_world.store.fragments(wheels, BASE, PROBE, report=ignore)
    assert [fragment.wheel_sha256 for fragment in fragments] == [wheel.sha256 for wheel in wheels]
    assert [fragment.distribution for fragment in fragments] == ["zeta", "alpha", "mid"]


async def test_no_wheels_are_no_work(store_world: StoreWorld) -> None:
    await store_world.store.fetch([], report=ignore)
    assert await store_world.store.fragments([], BASE, PROBE, report=ignore) == ()


async def test_progress_ends_with_everything_done_and_what_is_here_is_not_reported_again(
    store_world: StoreWorld,
) -> None:
    wheels = [store_world.publish(name) for name in ("alpha", "beta")]
    events: list[BuildEvent] = []
    await store_world.store.fetch(wheels, report=events.append)
    assert {event.phase for event in events} == {Phase.DOWNLOADING}
    assert events[-1].done == events[-1].total == sum(wheel.size_bytes or 0 for wheel in wheels)
    assert [event.done for event in events] == sorted(event.done for event in events)
    events.clear()
    await store_world.store.fetch(wheels, report=events.append)
    assert events == []
    await store_world.store.fragments(wheels, BASE, PROBE, report=events.append)
    assert (events[-1].phase, events[-1].done, events[-1].total) == (Phase.PREPARING, 2, 2)


async def test_a_wheel_that_cannot_be_had_fails_now_and_may_work_later(store_world: StoreWorld) -> None:
    good, bad = store_world.publish("good"), store_world.publish("bad")
    store_world.withdraw(bad)
    assert isinstance(await failure(store_world.store.fetch([good, bad], report=ignore)), IndexUnavailable)
    await store_world.store.fetch([good], report=ignore)
    store_world.publish_again(bad)
    await store_world.store.fetch([good, bad], report=ignore)
    assert len(await store_world.store.fragments([good, bad], BASE, PROBE, report=ignore)) == 2


async def test_a_wheel_that_was_not_fetched_is_a_fault_of_the_storage(store_world: StoreWorld) -> None:
    wheel = store_world.publish("alpha")
    assert isinstance(await failure(store_world.store.fragments([wheel], BASE, PROBE, report=ignore)), StorageFailure)


async def test_a_malformed_wheel_is_nobodys_environment(store_world: StoreWorld) -> None:
    wheel = store_world.publish_malformed("broken")
    with suppress(UnbuildableEnvironment):  # the double finds it malformed already here
        await store_world.store.fetch([wheel], report=ignore)
    assert isinstance(
        await failure(store_world.store.fragments([wheel], BASE, PROBE, report=ignore)), UnbuildableEnvironment
    )


# Downloads


async def test_a_wheel_is_kept_under_its_hash_and_downloaded_once(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    await disk.store.fetch([wheel, wheel], report=ignore)
    await disk.store.fetch([wheel], report=ignore)
    await disk.make().fetch([wheel], report=ignore)
    assert disk.wheel_path(wheel).read_bytes() == disk.index.files[wheel.filename].content
    assert disk.downloads(wheel) == 1


async def test_those_who_want_one_wheel_at_once_share_the_download(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    disk.index.behaviour.stalled.add(wheel.filename)
    both = asyncio.gather(disk.store.fetch([wheel], report=ignore), disk.store.fetch([wheel], report=ignore))
    await asyncio.to_thread(disk.index.await_request, "/files/alpha")
    disk.index.release()
    await both
    assert disk.downloads(wheel) == 1


async def test_many_wheels_arrive_in_parallel(disk: DiskWorld) -> None:
    """Both downloads stall until both have begun."""
    wheels = [disk.publish("alpha"), disk.publish("beta")]
    disk.index.behaviour.stalled.update(wheel.filename for wheel in wheels)
    task = asyncio.create_task(disk.store.fetch(wheels, report=ignore))
    await asyncio.to_thread(disk.index.await_request, "/files/", count=2)
    disk.index.release()
    await task


async def test_another_file_than_the_locked_one_is_refused_by_name(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    disk.index.behaviour.wrong_content.add(wheel.filename)
    error = await failure(disk.make(retries=3).fetch([wheel], report=ignore))
    assert isinstance(error, IndexUnavailable)
    assert "alpha 1.0" in error.message
    assert "another file" in error.message
    assert disk.downloads(wheel) == 1
    assert not disk.wheel_path(wheel).exists()
    assert disk.leftovers() == []


@pytest.mark.parametrize("difference_bytes", [-1, 1])
async def test_a_file_of_another_size_is_refused(disk: DiskWorld, difference_bytes: int) -> None:
    wheel = disk.publish("alpha")
    odd = replace(wheel, size_bytes=(wheel.size_bytes or 0) + difference_bytes, sha256="0" * 64)
    assert "another file" in (await failure(disk.store.fetch([odd], report=ignore))).message


async def test_a_missing_file_is_not_asked_for_again(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    disk.withdraw(wheel)
    error = await failure(disk.make(retries=3).fetch([wheel], report=ignore))
    assert "alpha 1.0" in error.message
    assert disk.downloads(wheel) == 1


@pytest.mark.parametrize("status", [500, 502, 429])
async def test_what_may_pass_is_tried_again(disk: DiskWorld, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_download, "_FIRST_PAUSE_SECONDS", 0.01)
    wheel = disk.publish("alpha")
    disk.index.behaviour.failures["/files/"] = status
    disk.index.behaviour.failures_left["/files/"] = 2
    await disk.make(retries=2).fetch([wheel], report=ignore)
    assert disk.downloads(wheel) == 3


async def test_what_does_not_pass_fails_in_the_end(disk: DiskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_download, "_FIRST_PAUSE_SECONDS", 0.01)
    wheel = disk.publish("alpha")
    disk.index.behaviour.failures["/files/"] = 503
    error = await failure(disk.make(retries=2).fetch([wheel], report=ignore))
    assert isinstance(error, IndexUnavailable)
    assert "503" in error.detail
    assert disk.downloads(wheel) == 3


async def test_a_server_that_falls_silent_is_given_up(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    disk.index.behaviour.stalled.add(wheel.filename)
    error = await failure(disk.make(silence_seconds=0.3).fetch([wheel], report=ignore))
    assert isinstance(error, IndexUnavailable)
    assert disk.leftovers() == []


async def test_the_first_failure_ends_the_other_downloads(disk: DiskWorld) -> None:
    slow, bad = disk.publish("slow"), disk.publish("bad")
    disk.index.behaviour.stalled.add(slow.filename)
    disk.withdraw(bad)
    await failure(disk.store.fetch([slow, bad], report=ignore))
    await until(lambda: not disk.leftovers())
    assert not disk.wheel_path(slow).exists()


async def test_a_cancelled_download_ends_and_leaves_nothing_behind(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    disk.index.behaviour.stalled.add(wheel.filename)
    task = asyncio.create_task(disk.store.fetch([wheel], report=ignore))
    await until(lambda: bool(disk.leftovers()))
    await asyncio.to_thread(disk.index.await_request, "/files/alpha")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not disk.leftovers())
    assert not disk.index.released.is_set()


async def test_one_who_leaves_does_not_disturb_another_who_waits_for_the_same_wheel(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    disk.index.behaviour.stalled.add(wheel.filename)
    leaves = asyncio.create_task(disk.store.fetch([wheel], report=ignore))
    stays = asyncio.create_task(disk.store.fetch([wheel], report=ignore))
    await asyncio.to_thread(disk.index.await_request, "/files/alpha")
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    disk.index.release()
    await stays
    assert disk.downloads(wheel) == 1


async def until(condition: Any, timeout_seconds: float = 10) -> None:
    """Wait for what another thread does and tells nobody about."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "never came true"
        await asyncio.sleep(0.01)


async def test_a_wheel_is_prepared_while_others_still_come(disk: DiskWorld) -> None:
    early, late = disk.publish("early"), disk.publish("late")
    disk.index.behaviour.stalled.add(late.filename)
    fetching = asyncio.create_task(disk.store.fetch([early, late], report=ignore, for_base=(BASE, PROBE)))
    await until(lambda: bool(prepared(disk)))
    assert not fetching.done()
    disk.index.release()
    await fetching
    fragments = await disk.store.fragments([early, late], BASE, PROBE, report=ignore)
    assert [fragment.distribution for fragment in fragments] == ["early", "late"]
    assert disk.downloads(early) == disk.downloads(late) == 1


async def test_each_fragment_is_told_of_once_it_is_there(store_world: StoreWorld) -> None:
    wheels = [store_world.publish(name) for name in ("alpha", "beta", "gamma")]
    await store_world.store.fetch(wheels, report=ignore)
    await store_world.store.fragments(wheels[:1], BASE, PROBE, report=ignore)
    told: list[Fragment] = []
    fragments = await store_world.store.fragments(wheels, BASE, PROBE, report=ignore, made=told.append)
    assert sorted(told, key=lambda one: one.distribution) == list(fragments)
    assert told[0].distribution == "alpha"


async def test_what_cannot_be_prepared_is_said_by_who_asks_for_the_fragments(disk: DiskWorld) -> None:
    malformed, late = disk.publish_malformed("malformed"), disk.publish("late")
    disk.index.behaviour.stalled.add(late.filename)
    fetching = asyncio.create_task(disk.store.fetch([malformed, late], report=ignore, for_base=(BASE, PROBE)))
    await until(lambda: disk.wheel_path(malformed).exists())
    disk.index.release()
    await fetching
    error = await failure(disk.store.fragments([malformed, late], BASE, PROBE, report=ignore))
    assert isinstance(error, UnbuildableEnvironment)


async def test_who_leaves_while_wheels_come_leaves_nothing_running(disk: DiskWorld) -> None:
    early, late = disk.publish("early"), disk.publish("late")
    disk.index.behaviour.stalled.add(late.filename)
    switches = disk.compiler.switches
    switches.gates["compile"] = asyncio.Event()
    fetching = asyncio.create_task(disk.store.fetch([early, late], report=ignore, for_base=(BASE, PROBE)))
    await until(lambda: switches.calls["compile"])
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    await until(lambda: switches.cancelled["compile"] and not disk.leftovers())
    assert prepared(disk) == []


def prepared(disk: DiskWorld) -> list[Path]:
    return list((disk.cache / "fragments").rglob("*.json"))


async def test_a_cut_or_damaged_wheel_is_downloaded_again(disk: DiskWorld) -> None:
    cut, unsized = disk.publish("cut"), replace(disk.publish("unsized"), size_bytes=None)
    await disk.store.fetch([cut, unsized], report=ignore)
    os.truncate(disk.wheel_path(cut), 100)
    disk.wheel_path(unsized).write_bytes(bytes(disk.wheel_path(unsized).stat().st_size))
    await disk.store.fetch([cut, unsized], report=ignore)
    assert disk.downloads(cut) == disk.downloads(unsized) == 2
    assert disk.wheel_path(unsized).read_bytes() == disk.index.files[unsized.filename].content


async def test_the_limit_for_wheels_without_a_size_is_kept_again_and_again(store_world: StoreWorld) -> None:
    """It counts no wheel whose size is known, and counts what is here already: who tries again does not get it."""
    known, unsized = store_world.publish("known"), replace(store_world.publish("unsized"), size_bytes=None)
    await store_world.store.fetch([known], report=ignore, max_unsized_bytes=1)
    for _ in range(2):
        error = await failure(store_world.store.fetch([unsized], report=ignore, max_unsized_bytes=10))
        assert isinstance(error, PolicyRefusal)
    await store_world.store.fetch([known, unsized], report=ignore, max_unsized_bytes=10_000)


async def test_a_download_stops_at_the_limit_and_names_the_wheel(disk: DiskWorld) -> None:
    """It does not go on to its end."""
    unsized = replace(disk.publish("unsized", files={"big.bin": os.urandom(2_000_000)}), size_bytes=None)
    disk.index.behaviour.stalled.add(unsized.filename)
    error = await failure(disk.store.fetch([unsized], report=ignore, max_unsized_bytes=10))
    assert isinstance(error, PolicyRefusal)
    assert "unsized 1.0" in error.message
    assert not disk.wheel_path(unsized).exists()


async def test_a_full_disk_is_the_storages_fault(disk: DiskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    wheel = disk.publish("alpha")
    monkeypatch.setattr(tempfile, "mkstemp", full)
    error = await failure(disk.store.fetch([wheel], report=ignore))
    assert isinstance(error, StorageFailure)
    assert str(disk.cache) not in error.message


async def test_a_cache_that_cannot_be_made_is_the_storages_fault(disk: DiskWorld, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wheel = disk.publish("alpha")
    store = DiskWheelStore(NetworkSettings(), tmp_path / "file", MemoryCompiler())
    assert isinstance(await failure(store.fetch([wheel], report=ignore)), StorageFailure)
    await store.close()


async def test_a_wheel_in_a_folder_is_copied_and_verified(disk: DiskWorld, tmp_path: Path) -> None:
    wheel = disk.publish("alpha")
    (tmp_path / "an index").mkdir()
    folder = disk.index.export(tmp_path / "an index")
    local = replace(wheel, url=f"{folder}/alpha/{wheel.filename}", size_bytes=None)
    await disk.store.fetch([local], report=ignore)
    assert disk.downloads(wheel) == 0
    assert disk.wheel_path(wheel).is_file()
    os.mkfifo(tmp_path / "pipe")
    for url in ((tmp_path / "nothing").as_uri(), (tmp_path / "pipe").as_uri(), tmp_path.as_uri()):
        other = replace(local, url=url, sha256="1" * 64)
        assert isinstance(await failure(disk.store.fetch([other], report=ignore)), IndexUnavailable)


# Credentials, proxies, certificates


async def test_credentials_of_the_index_are_used_for_its_files_and_never_shown(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    disk.index.behaviour.credentials = ("me@corp", "s3cret/word")
    url = disk.index.url_with_credentials("me%40corp", "s3cret%2Fword")
    error = await failure(disk.store.fetch([wheel], report=ignore))
    assert "credentials" in error.message
    await disk.make(url=url).fetch([wheel], report=ignore)
    disk.index.behaviour.failures["/files/"] = 418
    other = disk.publish("other")
    error = await failure(disk.make(url=url).fetch([other], report=ignore))
    assert "s3cret" not in error.message + error.detail


async def test_a_token_in_the_indexs_query_is_used_for_its_files_and_never_shown(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    store = disk.make(url=f"{disk.index.url}?token=s3cret-t0ken")
    await store.fetch([wheel], report=ignore)
    assert disk.index.requests[-1].query == "token=s3cret-t0ken"
    disk.index.behaviour.failures["/files/"] = 503
    error = await failure(store.fetch([disk.publish("other")], report=ignore))
    assert "s3cret" not in error.message + error.detail


async def test_the_cache_folder_is_the_hubs_alone(disk: DiskWorld) -> None:
    await disk.store.fetch([disk.publish("alpha")], report=ignore)
    assert disk.cache.stat().st_mode & 0o777 == 0o700


async def test_credentials_go_to_their_index_only(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    elsewhere = disk.index.url_with_credentials("me", "s3cret").replace(str(disk.index.port), "1")
    await disk.make(url=elsewhere).fetch([wheel], report=ignore)
    assert "Authorization" not in disk.index.requests[-1].headers


async def test_a_netrc_file_works(disk: DiskWorld, tmp_path: Path) -> None:
    wheel = disk.publish("alpha")
    disk.index.behaviour.credentials = ("me", "s3cret")
    (tmp_path / "logins").write_text("machine 127.0.0.1 login me password s3cret\n")
    await disk.make({"NETRC": str(tmp_path / "logins")}).fetch([wheel], report=ignore)


async def test_an_index_with_a_private_authority_is_reached_through_a_proxy(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trusting = {"REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem")}
    with (
        IndexServer(authority=authority, host="index.test") as index,
        ProxyServer(hosts={"index.test": index.port}, credentials=("me", "s3cret")) as proxy,
    ):
        world = DiskWorld(index, tmp_path / "cache")
        wheel = world.publish("alpha")
        through = {"https_proxy": proxy.url_with_credentials()}
        refused = await failure(world.make({**trusting, "https_proxy": proxy.url}).fetch([wheel], report=ignore))
        untrusted = await failure(world.make(through).fetch([wheel], report=ignore))
        no_file = await failure(world.make({"SSL_CERT_FILE": "/nowhere", **through}).fetch([wheel], report=ignore))
        await world.make({**trusting, **through}).fetch([wheel], report=ignore)
        assert world.wheel_path(wheel).is_file()
        assert set(proxy.tunnels()) == {f"index.test:{index.port}"}
        for store in world.stores:
            await store.close()
    assert {type(error) for error in (refused, untrusted, no_file)} == {IndexUnavailable}
    assert "certificate" in untrusted.message
    assert not any("s3cret" in error.message + error.detail for error in (refused, untrusted, no_file))


async def test_plain_http_goes_through_the_proxy_unless_the_host_is_excepted(disk: DiskWorld) -> None:
    first, second = disk.publish("alpha"), disk.publish("beta")
    with ProxyServer() as proxy:
        await disk.make({"HTTP_PROXY": proxy.url}).fetch([first], report=ignore)
        assert [request.path for request in proxy.requests] == [first.url]
        await disk.make({"HTTP_PROXY": proxy.url, "NO_PROXY": "127.0.0.0/8"}).fetch([second], report=ignore)
        assert len(proxy.requests) == 1


async def test_the_hubs_own_variables_count_only_through_the_settings(
    disk: DiskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    await disk.make({}).fetch([disk.publish("alpha")], report=ignore)


# Fragments


def bodies(fragment: Fragment) -> list[Path]:
    """The body of the installed wheel, and that of what was compiled."""
    return list(dict.fromkeys(file.body for file in fragment.files))


async def test_a_fragment_holds_the_wheels_files_where_the_base_wants_them(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha", files={"alpha/__init__.py": "x = 1\n"})
    await disk.store.fetch([wheel], report=ignore)
    (fragment,) = await disk.store.fragments([wheel], BASE, PROBE, report=ignore)
    assert f"{SITE}/alpha/__init__.py".lstrip("/") in {file.path for file in fragment.files}
    assert sum(body.stat().st_size for body in bodies(fragment)) == fragment.size_bytes


async def test_a_fragment_is_made_once_for_each_scheme(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    await disk.store.fetch([wheel], report=ignore)
    (first,) = await disk.store.fragments([wheel], BASE, PROBE, report=ignore)
    made = [body.stat().st_ino for body in bodies(first)]
    (again,) = await disk.make().fragments([wheel], BASE, PROBE, report=ignore)
    assert again == first
    assert [body.stat().st_ino for body in bodies(again)] == made
    assert len(disk.compiler.compiled) == 1
    elsewhere = make_probe(interpreter="/usr/bin/python3")
    (other,) = await disk.store.fragments([wheel], BASE, elsewhere, report=ignore)
    assert set(bodies(other)).isdisjoint(bodies(first))


async def test_another_build_of_the_interpreter_compiles_anew_and_installs_nothing_anew(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    await disk.store.fetch([wheel], report=ignore)
    (first,) = await disk.store.fragments([wheel], BASE, PROBE, report=ignore)
    (other,) = await disk.store.fragments([wheel], BASE, make_probe(build="another"), report=ignore)
    assert bodies(other)[0] == bodies(first)[0]
    assert bodies(other)[1] != bodies(first)[1]
    assert len(disk.compiler.compiled) == 2


async def test_a_fragment_has_the_bytecode_of_what_compiles(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha", files={"alpha/good.py": "x = 1\n", "alpha/bad.py": "x =\n", "alpha/data.txt": "x"})
    await disk.store.fetch([wheel], report=ignore)
    (fragment,) = await disk.store.fragments([wheel], BASE, PROBE, report=ignore)
    compiled = [file.path for file in fragment.files if file.path.endswith(".pyc")]
    assert compiled == [f"{SITE}/alpha/__pycache__/good.{PROBE.cache_tag}.pyc".lstrip("/")]


@pytest.mark.parametrize("part", [0, 1], ids=["installed", "compiled"])
@pytest.mark.parametrize("damage", ["cut body", "no body", "cut index", "no index", "foreign index"])
async def test_a_damaged_fragment_is_made_again(disk: DiskWorld, damage: str, part: int) -> None:
    wheel, other = disk.publish("alpha"), disk.publish("beta")
    await disk.store.fetch([wheel, other], report=ignore)
    fragment, foreign = await disk.store.fragments([wheel, other], BASE, PROBE, report=ignore)
    body = bodies(fragment)[part]
    contents = [path.read_bytes() for path in bodies(fragment)]
    index = body.with_suffix(".json")
    match damage:
        case "cut body":
            os.truncate(body, 512)
        case "no body":
            body.unlink()
        case "cut index":
            os.truncate(index, 20)
        case "no index":
            index.unlink()
        case "foreign index":
            index.write_bytes(bodies(foreign)[part].with_suffix(".json").read_bytes())
    (again,) = await disk.store.fragments([wheel], BASE, PROBE, report=ignore)
    assert again == fragment
    assert [path.read_bytes() for path in bodies(again)] == contents


async def test_a_build_that_finds_things_in_the_cache_uses_them_all(disk: DiskWorld) -> None:
    """They go last from a cache that is full, and everything of theirs that goes is made again."""
    wheel = disk.publish("alpha")
    await disk.store.fetch([wheel], report=ignore)
    (fragment,) = await disk.store.fragments([wheel], BASE, PROBE, report=ignore)
    files = [disk.wheel_path(wheel), *bodies(fragment)]
    for file in files:
        os.utime(file, (1, 1))
    await disk.store.fetch([wheel], report=ignore)
    await disk.store.fragments([wheel], BASE, PROBE, report=ignore)
    assert [file.stat().st_mtime for file in files] == [1] * len(files)
    assert all(file.stat().st_atime > 1 for file in files)
    enforce(disk.cache, max_bytes=1, in_use_seconds=0)
    assert not any(file.exists() for file in files)
    await disk.store.fetch([wheel], report=ignore)
    assert await disk.store.fragments([wheel], BASE, PROBE, report=ignore) == (fragment,)


async def test_a_failure_to_compile_is_told_as_it_is_and_forgotten(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    await disk.store.fetch([wheel], report=ignore)
    disk.compiler.switches.failures["compile"] = EngineUnavailable("The container engine cannot be reached.")
    assert isinstance(await failure(disk.store.fragments([wheel], BASE, PROBE, report=ignore)), EngineUnavailable)
    del disk.compiler.switches.failures["compile"]
    assert len(await disk.store.fragments([wheel], BASE, PROBE, report=ignore)) == 1


async def test_a_wheel_that_was_damaged_on_the_disk_is_not_held_against_the_user(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    await disk.store.fetch([wheel], report=ignore)
    disk.wheel_path(wheel).write_bytes(bytes(wheel.size_bytes or 0))
    assert isinstance(await failure(disk.store.fragments([wheel], BASE, PROBE, report=ignore)), StorageFailure)
    await disk.store.fetch([wheel], report=ignore)
    assert len(await disk.store.fragments([wheel], BASE, PROBE, report=ignore)) == 1


async def test_two_stores_on_one_folder_do_not_disturb_each_other(disk: DiskWorld) -> None:
    wheels = [disk.publish(f"package{number}") for number in range(6)]
    stores = [disk.make(), disk.make()]

    async def both_steps(store: DiskWheelStore) -> Any:
        await store.fetch(wheels, report=ignore)
        return await store.fragments(wheels, BASE, PROBE, report=ignore)

    one, other = await asyncio.gather(*map(both_steps, stores))
    assert one == other
    assert disk.leftovers() == []


def worker_ids() -> set[int]:
    """The fragment workers that this process started."""
    children = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) != os.getpid():
                continue
            if b"prebuilt_spawner.image.worker" in stat.with_name("cmdline").read_bytes():
                children.add(int(stat.parent.name))
    return children


async def test_a_worker_is_kept_for_the_next_wheel_and_ended_with_the_store(disk: DiskWorld) -> None:
    wheels = [disk.publish("alpha"), disk.publish("beta")]
    await disk.store.fetch(wheels, report=ignore)
    await disk.store.fragments(wheels[:1], BASE, PROBE, report=ignore)
    first = worker_ids()
    await disk.store.fragments(wheels[1:], BASE, PROBE, report=ignore)
    assert len(first) == 1
    assert worker_ids() == first
    await disk.store.close()
    assert worker_ids() == set()


async def test_a_worker_does_not_get_the_hubs_secrets(disk: DiskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIGPROXY_AUTH_TOKEN", "s3cret")
    wheel = disk.publish("alpha")
    await disk.store.fetch([wheel], report=ignore)
    await disk.store.fragments([wheel], BASE, PROBE, report=ignore)
    (worker,) = worker_ids()
    assert b"s3cret" not in await asyncio.to_thread(Path(f"/proc/{worker}/environ").read_bytes)


async def test_a_cancelled_preparation_ends_its_worker(disk: DiskWorld) -> None:
    wheels = [disk.publish("alpha"), disk.publish("beta")]
    await disk.store.fetch(wheels, report=ignore)
    await disk.store.fragments(wheels[:1], BASE, PROBE, report=ignore)
    (worker,) = worker_ids()
    os.kill(worker, signal.SIGSTOP)  # so that its next job does not end
    task = asyncio.create_task(disk.store.fragments(wheels[1:], BASE, PROBE, report=ignore))
    done, _ = await asyncio.wait([task], timeout=0.2)
    assert not done
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not worker_ids())
    assert len(await disk.store.fragments(wheels, BASE, PROBE, report=ignore)) == 2


async def test_a_worker_that_dies_is_no_fault_of_the_user_and_the_next_one_works(disk: DiskWorld) -> None:
    wheels = [disk.publish("alpha"), disk.publish("beta")]
    await disk.store.fetch(wheels, report=ignore)
    await disk.store.fragments(wheels[:1], BASE, PROBE, report=ignore)
    (worker,) = worker_ids()
    os.kill(worker, signal.SIGSTOP)
    task = asyncio.create_task(disk.store.fragments(wheels[1:], BASE, PROBE, report=ignore))
    await asyncio.sleep(0)
    os.kill(worker, signal.SIGKILL)
    error = await failure(task)
    assert isinstance(error, SurroundingsError)
    assert "beta" in error.message
    assert "SIGKILL" in error.detail
    assert len(await disk.store.fragments(wheels, BASE, PROBE, report=ignore)) == 2


async def test_closing_ends_what_runs(disk: DiskWorld) -> None:
    wheel = disk.publish("alpha")
    disk.index.behaviour.stalled.add(wheel.filename)
    task = asyncio.create_task(disk.store.fetch([wheel], report=ignore))
    await asyncio.to_thread(disk.index.await_request, "/files/alpha")
    await disk.store.close()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not any("wheel-download" in thread.name for thread in threading.enumerate()))
