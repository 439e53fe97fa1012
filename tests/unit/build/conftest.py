"""Fixtures of the tests of `prebuilt_spawner.build`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from .locking_world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.resolver.publish("demo", "1.0")
    world.resolver.publish("extra", "1.0", "demo")
    world.resolver.publish("other", "1.0")
    yield world
    await world.locksmith.close()
    await world.ledger.close()


@pytest.fixture
def gate(world) -> asyncio.Event:
    """Resolving waits until this is set."""
    gate = asyncio.Event()
    world.resolver.switches.gates["resolve"] = gate
    return gate
