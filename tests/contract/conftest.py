"""The worlds that contracts are tested in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .engine_worlds import REQUIRED, TEST_BASE, DockerWorld, EngineWorld, MemoryWorld


@pytest.fixture(params=["memory", "file"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database in memory, and one in a file."""
    return "sqlite://" if request.param == "memory" else f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture
async def docker_engine_world(tmp_path) -> AsyncIterator[EngineWorld]:
    """A real engine. It fails, and is never skipped, where there is none."""
    assert TEST_BASE, "PREBUILT_SPAWNER_TEST_BASE names no base image: run the tests with `make test`"
    world = DockerWorld(tmp_path)
    await world.start()
    yield world
    await world.close()


@pytest.fixture
async def docker_build_engine_world(tmp_path) -> AsyncIterator[EngineWorld]:
    """The same, with images made by the engine's builder."""
    world = DockerWorld(tmp_path, handover="build")
    await world.start()
    yield world
    await world.close()


@pytest.fixture
async def memory_engine_world() -> AsyncIterator[EngineWorld]:
    """The double."""
    world = MemoryWorld()
    await world.start()
    yield world
    await world.close()


# Without a base there is no real engine to test: `make unit` runs the double alone. Where an engine is required, its
# tests are there in any case, and fail without a base.
@pytest.fixture(params=["memory", *(["docker", "docker_build"] if TEST_BASE or REQUIRED else [])])
def engine_world(request: pytest.FixtureRequest) -> EngineWorld:
    """Each world in turn."""
    return request.getfixturevalue(f"{request.param}_engine_world")
