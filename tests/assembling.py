"""Environments without a hub: the parts that a hub has, wired as it wires them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from prebuilt_spawner.adapters.docker_engine import DockerEngine
from prebuilt_spawner.adapters.docker_handover import Handover
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.provider import Environment, EnvironmentRequest
from prebuilt_spawner.build.sources import SourceBuildLimits
from prebuilt_spawner.hub import runtime
from prebuilt_spawner.hub.runtime import RuntimeSettings, build_manager


async def assembled(
    requirements: Sequence[str],
    *,
    base: str,
    repository: str,
    folder: Path,
    client_kwargs: Mapping[str, Any] | None = None,
    index_url: str = "",
    handover: Handover = "auto",
) -> Environment:
    """The environment that is asked for, with its image in the engine.

    Args:
        requirements: Canonical.
        base: The base image's reference.
        repository: Where the image is named.
        folder: For caches and the ledger; what was asked there before has the same answer.
        client_kwargs: Of the engine's client; by default as the environment says.
        index_url: Where packages are; by default as the environment says.
        handover: How the image gets into the engine.
    """
    settings = RuntimeSettings(
        repository=repository,
        immutable=True,
        index_url=index_url,
        extra_index_urls=(),
        db_url=f"sqlite:///{folder}/ledger.sqlite",
        cache_dir=str(folder),
        max_concurrent_builds=1,
        max_queued_builds=0,
        failure_ttl=0,
        allow_source_builds=True,
        source_build_limits=SourceBuildLimits(),
        max_cache_bytes=0,
        min_free_bytes=0,
        client_kwargs=client_kwargs or {},
    )
    with mock.patch.object(runtime, "DockerEngine", partial(DockerEngine, handover=handover)):
        manager = await build_manager(settings)
    try:
        request = EnvironmentRequest(user="anybody", requirements=tuple(requirements), base=base)
        return await manager.ensure(request, report=ignore)
    finally:
        await manager.close()
