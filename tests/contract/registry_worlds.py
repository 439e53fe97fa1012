"""The worlds in which a registry's contract is tested: the double's, and that of a server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

from prebuilt_spawner.adapters.memory_registry import MemoryRegistry
from prebuilt_spawner.adapters.oci_registry import OciRegistry
from prebuilt_spawner.adapters.registry_session import registry_network
from prebuilt_spawner.build.registry import BaseContent, LayerTaker, Push, Registry
from prebuilt_spawner.environment.base import BaseImage
from prebuilt_spawner.environment.digest import base_digest
from prebuilt_spawner.errors import RegistryRefusal, RegistryUnavailable
from prebuilt_spawner.image.config import MANIFEST_MEDIA_TYPE
from prebuilt_spawner.image.layer import FileRange, ImagePlan, Layer, LowerLayers
from prebuilt_spawner.image.names import DIGEST_LABEL
from prebuilt_spawner.image.tar import END_OF_ARCHIVE, padding, tar_header
from tests.registry_server import RegistryServer

REPOSITORY = "prebuilt-test/env"


def archive(name: str, content: bytes) -> bytes:
    """A tar with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


BASE_LAYERS = (archive("bin/python", b"python" * 10_000), archive("etc/os", b"os" * 1_000))


def layer(name: str, content: bytes) -> Layer:
    """A layer of ours with one file."""
    header = tar_header(name, size_bytes=len(content), mode=0o644, kind="file")
    return Layer(comment=name, parts=(header + content + padding(len(content)), END_OF_ARCHIVE))


def from_file(path: Path) -> Layer:
    """A layer whose bytes are on the disk, as fragments are."""
    return Layer(comment="a fragment", parts=(FileRange(path=path, offset_bytes=0, length_bytes=1024), END_OF_ARCHIVE))


def base_image() -> BaseImage:
    """The base that the plans stand on."""
    diff_ids = tuple(f"sha256:{hashlib.sha256(one).hexdigest()}" for one in BASE_LAYERS)
    platform = {"os": "linux", "architecture": "amd64"}
    config = {"Cmd": ["start.py"], "Env": ["PATH=/usr/bin"]}
    return BaseImage(
        reference="base:1",
        image_id="sha256:" + "1" * 64,
        digest=base_digest(diff_ids=diff_ids, config=config, **platform),
        diff_ids=diff_ids,
        config=config,
        **platform,
    )


def plan_of(tag: str, *layers: Layer) -> ImagePlan:
    """The plan of an image on the base."""
    base = base_image()
    return ImagePlan(
        base=base,
        lower=LowerLayers(image_id=base.image_id, diff_ids=base.diff_ids),
        layers=layers,
        labels={DIGEST_LABEL: tag},
        environment={},
        digest=tag,
    )


def base_content(*names: str) -> BaseContent:
    """The base's layers, as an engine gives them that does not say which is which."""

    def save(take: LayerTaker, stop: threading.Event) -> None:
        for one in reversed(BASE_LAYERS):
            take("", iter([one[:700], one[700:]]))

    return BaseContent(names=names, save=save)


class RegistryWorld(Protocol):
    """A registry, and what a test must see and do behind its back."""

    registry: Registry

    async def close(self) -> None: ...

    def tags(self) -> Mapping[str, str]:
        """Manifest digest by tag."""

    def take(self, tag: str) -> str:
        """Somebody else puts an image under this tag; returns its manifest digest."""

    def refuse(self) -> None:
        """From now on nobody is let in."""

    def refuse_writing(self) -> None:
        """From now on nobody may write."""

    def stop(self) -> None:
        """From now on it cannot be reached."""

    def pushing(self, tag: str, plan: ImagePlan) -> contextlib.AbstractAsyncContextManager[asyncio.Task[Push]]:
        """While entered, this push has begun and does not get on."""


class MemoryRegistryWorld:
    """The double."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry()

    async def close(self) -> None:
        await self.registry.close()

    def tags(self) -> Mapping[str, str]:
        return self.registry.tags

    def take(self, tag: str) -> str:
        self.registry.put(tag, {"config": {"Labels": {"somebody": "else"}}})
        return self.registry.tags[tag]

    def refuse(self) -> None:
        refusal = RegistryRefusal("The registry does not let this hub in. Tell your administrator.")
        self.registry.switches.failures |= {"find": refusal, "push": refusal}

    def refuse_writing(self) -> None:
        self.refuse()
        del self.registry.switches.failures["find"]

    def stop(self) -> None:
        failure = RegistryUnavailable("The registry cannot be reached. Tell your administrator.")
        self.registry.switches.failures |= {"find": failure, "push": failure}

    @contextlib.asynccontextmanager
    async def pushing(self, tag: str, plan: ImagePlan) -> AsyncIterator[asyncio.Task[Push]]:
        switches = self.registry.switches
        gate = switches.gates["manifest"] = asyncio.Event()
        task = asyncio.ensure_future(self.registry.push(tag, plan, base_content()))
        while not switches.calls["manifest"]:
            await asyncio.sleep(0.001)
        yield task
        gate.set()
        await asyncio.wait({task})


class ServerRegistryWorld:
    """A server of the tests' own."""

    def __init__(self) -> None:
        self.server = RegistryServer()
        network = registry_network(self.server.host, {})
        self.registry = OciRegistry(self.server.host, REPOSITORY, network, look_seconds=2)

    async def close(self) -> None:
        self.server.close()
        await self.registry.close()

    def tags(self) -> Mapping[str, str]:
        return {tag: self._digest(tag) for tag in self.server.tags(REPOSITORY)}

    def take(self, tag: str) -> str:
        content = json.dumps({"schemaVersion": 2, "config": {}, "layers": []}).encode()
        self.server.put_manifest(REPOSITORY, tag, MANIFEST_MEDIA_TYPE, content)
        return self._digest(tag)

    def refuse(self) -> None:
        self.server.behaviour.credentials = ("somebody", "else")

    def refuse_writing(self) -> None:
        self.server.behaviour.read_only = True

    def stop(self) -> None:
        self.server.close()

    @contextlib.asynccontextmanager
    async def pushing(self, tag: str, plan: ImagePlan) -> AsyncIterator[asyncio.Task[Push]]:
        self.server.behaviour.silent.add("PATCH ")
        task = asyncio.ensure_future(self.registry.push(tag, plan, base_content()))
        await asyncio.to_thread(self.server.await_request, f"/v2/{REPOSITORY}/blobs/uploads/", count=2)
        yield task
        self.server.behaviour.silent.clear()
        self.server.release()
        await asyncio.wait({task})

    def _digest(self, tag: str) -> str:
        return f"sha256:{hashlib.sha256(self.server.manifests[REPOSITORY, tag][1]).hexdigest()}"
