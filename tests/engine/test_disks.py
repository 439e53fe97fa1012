"""Disks that are nearly full, on a small filesystem that is mounted for the test."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from prebuilt_spawner.adapters.disk_guard import DiskGuard, free_bytes_of
from prebuilt_spawner.errors import StorageFailure

from ..index_server import IndexServer
from .hub import Hub

MB = 1_000_000


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The mount point of an ext4 filesystem of 64 MB. Where loop devices cannot be had and no engine is required, one
    in memory takes its place."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as stream:
        stream.truncate(64 * 1024 * 1024)
    try:
        run("mkfs.ext4", "-q", "-m", "0", str(image))
        run("mount", "-o", "loop", str(image), str(place))
    except (AssertionError, FileNotFoundError):
        if os.environ.get("REQUIRE_ENGINE") == "1":
            raise
        run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place))
    try:
        yield place
    finally:
        run("umount", str(place))


def fill(disk: Path, *, leave_bytes: int) -> Path:
    file = disk / "filler"
    with file.open("wb") as stream:
        while free_bytes_of(disk) > leave_bytes:
            stream.write(b"x" * 500_000)
            stream.flush()
            os.fsync(stream.fileno())
    return file


async def test_a_nearly_full_cache_disk_refuses_builds_until_there_is_room(small_disk: Path):
    """The user reads that ready servers start, the administrator which disk it is and how full; no path for users."""
    guard = DiskGuard(small_disk / "cache" / "not made yet", min_free_bytes=20 * MB)
    await guard.check()
    filler = fill(small_disk, leave_bytes=10 * MB)
    with pytest.raises(StorageFailure) as caught:
        await guard.check()
    assert caught.value.message == (
        "The hub's disk is nearly full, so nothing new can be built. Servers whose environment is ready still start. "
        "Tell your administrator."
    )
    assert caught.value.status == 503
    assert str(small_disk) in caught.value.detail
    assert "0.02 GB" in caught.value.detail
    filler.unlink()
    await guard.check()
    await guard.close()


def test_on_a_hub_whose_disk_is_nearly_full_what_is_ready_starts_and_what_runs_goes_on(
    small_disk: Path, make_hub: Callable[..., Hub], light_base: str
):
    """Only a new environment is refused, with a 503 that says why, until there is room."""
    with IndexServer() as index:
        for name in ("demo-ready", "demo-new"):
            index.add_wheel(name, "1.0", files={f"{name}.txt": secrets.token_hex(8)})
        settings = f"c.PrebuiltSpawner.index_url = {index.url!r}\nc.PrebuiltSpawner.min_free_bytes = {20 * MB}\n"
        hub = make_hub(base=light_base, cache_dir=small_disk / "cache", settings=settings)
        hub.start()
        try:
            runs, comes, waits = (hub.user(name) for name in ("diskruns", "diskcomes", "diskwaits"))
            assert hub.start_server(runs, {"packages": ["demo-ready"]}).ready
            filler = fill(small_disk, leave_bytes=10 * MB)
            assert hub.start_server(comes, {"packages": ["demo-ready"]}).ready
            refused = hub.start_server(waits, {"packages": ["demo-new"]})
            assert not refused.ready
            assert refused.status in (503, 202)
            assert "disk is nearly full, so nothing new can be built" in refused.message
            for user in (runs, comes):
                assert requests.get(f"{hub.url}/user/{user}/", timeout=30).json() == {}
            filler.unlink()
            assert hub.start_server(waits, {"packages": ["demo-new"]}).ready
        finally:
            hub.stop()  # before its disk goes


async def test_the_disk_of_an_engine_on_this_machine_counts(tmp_path: Path, client):
    """Only the limit lies between what passes and what does not: the disk itself is the engine's real one."""
    engine_free_bytes = free_bytes_of(Path(client.info()["DockerRootDir"]))
    cache_free_bytes = free_bytes_of(tmp_path)
    passing = DiskGuard(tmp_path, min_free_bytes=min(engine_free_bytes, cache_free_bytes) // 2)
    await passing.check()
    await passing.close()
    failing = DiskGuard(tmp_path, min_free_bytes=engine_free_bytes * 2)
    failing._check_folder = _only_engine(failing._check_folder)
    with pytest.raises(StorageFailure) as caught:
        await failing.check()
    assert "the engine's data" in caught.value.detail
    await failing.close()


def _only_engine(check):
    return lambda folder, what: None if what == "the cache" else check(folder, what)


async def test_an_engine_that_is_elsewhere_or_silent_does_not_count(tmp_path: Path):
    """Whether it can be reached, others say."""
    for base_url in (f"unix://{tmp_path}/no.sock", "tcp://127.0.0.1:9"):
        guard = DiskGuard(tmp_path, min_free_bytes=1, client_kwargs={"base_url": base_url, "version": "1.41"})
        await guard.check()
        await guard.close()


async def test_with_a_limit_of_zero_nothing_is_looked_at(small_disk: Path):
    fill(small_disk, leave_bytes=MB)
    guard = DiskGuard(small_disk, min_free_bytes=0)
    await guard.check()
    await guard.close()
