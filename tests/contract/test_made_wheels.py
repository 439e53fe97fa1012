"""What the shelf of built wheels promises, on the in-memory double and in a folder that others use as well."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from prebuilt_spawner.adapters.built_wheels import BuiltWheels, built_file
from prebuilt_spawner.adapters.memory_sources import MemoryMadeWheels
from prebuilt_spawner.build.sources import MadeWheels
from prebuilt_spawner.environment.lock import LockedSource, LockedWheel, built_wheel
from tests.unit.build.locking_world import base_image
from tests.unit.environment.probes import make_probe

PROBE = make_probe()
BASE = base_image("b")
SOURCE = LockedSource(
    name="legacy",
    version="1.0",
    filename="legacy-1.0.tar.gz",
    url="https://index.example/legacy-1.0.tar.gz",
    sha256="a" * 64,
    base_digest=BASE.digest,
)
WHEEL = built_wheel(SOURCE, filename="legacy-1.0-py3-none-any.whl", size_bytes=5)


@pytest.fixture(params=["memory", "folder"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> MadeWheels:
    return MemoryMadeWheels() if request.param == "memory" else BuiltWheels(tmp_path / "cache")


async def put(shelf: MadeWheels, wheel: LockedWheel = WHEEL, content: bytes = b"12345") -> Path:
    async with shelf.workplace() as folder:
        made = folder / wheel.filename
        if folder.is_dir():
            made.write_bytes(content)
        return (await shelf.keep(wheel, made, "it said so")).path


async def test_what_is_kept_is_found_by_what_made_it_under_its_own_name(shelf: MadeWheels):
    assert await shelf.find(WHEEL) is None
    path = await put(shelf)
    found = await shelf.find(WHEEL)
    assert found is not None
    assert (found.path, found.wheel, found.path.name) == (path, WHEEL, WHEEL.filename)


async def test_what_was_made_last_of_a_source_in_a_base_is_known(shelf: MadeWheels):
    """While it is here; in another base something else is made of it."""
    await put(shelf)
    assert await shelf.known(SOURCE, BASE, PROBE) is None
    await shelf.note(WHEEL)
    known = await shelf.known(SOURCE, BASE, PROBE)
    assert known is not None
    assert known.wheel == WHEEL
    assert await shelf.known(SOURCE, base_image("c"), PROBE) is None
    assert await shelf.known(replace(SOURCE, sha256="e" * 64), BASE, PROBE) is None
    await shelf.drop(WHEEL)
    assert await shelf.known(SOURCE, BASE, PROBE) is None


async def test_who_is_second_gets_what_is_there(shelf: MadeWheels):
    """Whatever the name of theirs is, and also where several hubs are at it at once."""
    first = await put(shelf)
    other = replace(WHEEL, filename="legacy-1.0-cp311-cp311-linux_x86_64.whl")
    assert await put(shelf, other, b"other") == first
    assert len(set(await asyncio.gather(*(put(shelf) for _ in range(8))))) == 1


async def test_hubs_that_share_a_folder_never_see_a_piece_of_one(tmp_path: Path):
    """Each keeps, and all look meanwhile."""
    hubs = [BuiltWheels(tmp_path / "cache") for _ in range(4)]
    paths = await asyncio.gather(*(put(hub, content=bytes([number]) * 100_000) for number, hub in enumerate(hubs)))
    assert len(set(paths)) == 1
    found = built_file(tmp_path / "cache", WHEEL.sha256)
    assert found is not None
    content = found.path.read_bytes()
    assert len(set(content)) == 1
    assert sorted(path.name for path in found.path.parent.iterdir()) == [WHEEL.filename, "log.txt", "made.json"]
    assert [path for path in (tmp_path / "cache/built").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("damage", ["wheel is short", "wheel has gone", "no note", "odd note"])
async def test_what_is_damaged_is_not_there_and_made_anew(tmp_path: Path, damage: str):
    """What removes old files, or a full disk, may leave a piece."""
    shelf = BuiltWheels(tmp_path)
    path = await put(shelf)
    if damage == "wheel is short":
        path.write_bytes(b"1")
    elif damage == "wheel has gone":
        path.unlink()
    elif damage == "no note":
        (path.parent / "made.json").unlink()
    else:
        (path.parent / "made.json").write_text('{"filename": "../x", "sha256": "", "size_bytes": 1}')
    assert await shelf.find(WHEEL) is None
    assert (await put(shelf)).read_bytes() == b"12345"


async def test_the_log_of_a_build_is_beside_its_wheel(tmp_path: Path):
    path = await put(BuiltWheels(tmp_path))
    assert (path.parent / "log.txt").read_text() == "it said so"
