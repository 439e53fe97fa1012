"""The registry of a hub, wired together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..adapters.docker_transfers import DockerTransfers
from ..adapters.oci_registry import OciRegistry
from ..adapters.registry_session import registry_network
from ..build.interface import Engine
from ..build.pushes import Pushes, PushMemory
from ..build.shared_cache import SharedCache
from ..environment.reference import repository_places

if TYPE_CHECKING:
    from .runtime import RuntimeSettings


def shared_registry(
    settings: RuntimeSettings, *, engine: Engine, memory: PushMemory, hub: str, labels: Mapping[str, str]
) -> tuple[SharedCache | None, Pushes | None]:
    """Who fetches from the configured registry, and who pushes there; nobody where there is none."""
    if not settings.registry:
        return None, None
    registry = OciRegistry(settings.registry, settings.repository, registry_network(settings.registry, os.environ))
    place, *_ = repository_places(settings.repository, settings.registry)
    transfers = DockerTransfers(place=place, client_kwargs=settings.client_kwargs, labels=labels)
    pushes = Pushes(registry=registry, transfers=transfers, engine=engine, memory=memory, hub=hub, place=place)
    return SharedCache(registry, transfers), pushes
