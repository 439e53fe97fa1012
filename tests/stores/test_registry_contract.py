"""The contract of registries, on Debian's."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from prebuilt_spawner.adapters.oci_registry import OciRegistry
from prebuilt_spawner.adapters.registry_session import registry_network
from prebuilt_spawner.build.registry import BaseContent, LayerTaker, Push
from prebuilt_spawner.image.layer import ImagePlan

from ..contract.registry_worlds import REPOSITORY, RegistryWorld, base_content
from ..contract.test_registry import *  # noqa: F403 - the contract; the world is another one here
from .registry import registry
from .small_bases import digest, published_index

ACCEPT = {
    "Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json",
}


class DebianRegistryWorld:
    """A registry process, started anew where it is to behave in another way."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = contextlib.ExitStack()
        self._process = self._running.enter_context(registry(folder))
        self._host = self._process.host
        self.registry = OciRegistry(self._host, REPOSITORY, registry_network(self._host, {}), look_seconds=2)

    async def close(self) -> None:
        await self.registry.close()
        self.stop()

    def tags(self) -> Mapping[str, str]:
        url = f"http://{self._host}/v2/{REPOSITORY}"
        answer = requests.get(f"{url}/tags/list", timeout=10)
        tags = (answer.json().get("tags") or ()) if answer.status_code == 200 else ()
        return {tag: digest(requests.get(f"{url}/manifests/{tag}", headers=ACCEPT, timeout=10).content) for tag in tags}

    def take(self, tag: str) -> str:
        self._process.push(REPOSITORY, tag, published_index([b"another layer" * 1000], {"User": "1000"}))
        return self.tags()[tag]

    def refuse(self) -> None:
        self._again(locked=True)

    def refuse_writing(self) -> None:
        self._again(read_only=True)

    def stop(self) -> None:
        self._running.close()

    def _again(self, **how: Any) -> None:
        self.stop()
        self._process = self._running.enter_context(registry(self._folder, host=self._host, **how))

    @contextlib.asynccontextmanager
    async def pushing(self, tag: str, plan: ImagePlan) -> AsyncIterator[asyncio.Task[Push]]:
        reached, gate = threading.Event(), threading.Event()

        def save(take: LayerTaker, stop: threading.Event) -> None:
            reached.set()
            gate.wait()
            base_content().save(take, stop)

        task = asyncio.ensure_future(self.registry.push(tag, plan, BaseContent(names=(), save=save)))
        await asyncio.to_thread(reached.wait)
        yield task
        gate.set()
        await asyncio.wait({task})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RegistryWorld]:
    world = DebianRegistryWorld(tmp_path)
    yield world
    await world.close()
