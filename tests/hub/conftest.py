"""A real JupyterHub in the tests' own process; containers and builds are doubles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from .doubles import Hub, run_hub


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    """A hub on which everybody may ask for any package."""
    async with asynccontextmanager(run_hub)() as running:
        yield running
