"""The worlds in which the engine's contract is tested: the double's, and a real engine's."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import docker
from docker.errors import ImageNotFound

from prebuilt_spawner.adapters.docker_bases import BaseLimits
from prebuilt_spawner.adapters.docker_engine import DockerEngine
from prebuilt_spawner.adapters.docker_handover import Handover
from prebuilt_spawner.adapters.memory import MemoryEngine
from prebuilt_spawner.build.interface import Engine
from prebuilt_spawner.environment.base import BaseImage, BaseProbe, FolderEntry, InstallScheme
from prebuilt_spawner.environment.digest import base_digest
from prebuilt_spawner.errors import EngineUnavailable
from prebuilt_spawner.image.archive import docker_archive, layer_digest
from prebuilt_spawner.image.config import derived_config
from prebuilt_spawner.image.layer import ImagePlan
from prebuilt_spawner.image.names import DIGEST_LABEL, PROBE_LABEL

TEST_BASE = os.environ.get("PREBUILT_SPAWNER_TEST_BASE", "")
REQUIRED = os.environ.get("REQUIRE_ENGINE") == "1"


class EngineWorld(Protocol):
    """An engine, and what a test must see and do behind its back.

    Attributes:
        engine: What is tested.
        repository: For the names of derived images; nobody else's.
        base: The reference of a base image.
        absent: A reference that has no image and no registry.
    """

    engine: Engine
    repository: str
    base: str
    absent: str

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    def own_base(self) -> str:
        """The only name of a base with a layer of its own, which this makes."""

    def forget(self, reference: str) -> None:
        """Take a name away, and the image with its last one."""

    def name(self, image_id: str, reference: str) -> None:
        """Give an image of ours another name."""

    def name_foreign(self, reference: str) -> None:
        """Give an image that is not ours this name."""

    def use(self, image_id: str) -> None:
        """A container of this image exists from now on."""

    def images(self, digest: str) -> set[str]:
        """IDs of the images that carry this environment digest; those that a test looked for are removed after it."""

    def config(self, image_id: str) -> Mapping[str, Any]:
        """Runtime configuration of an image of ours."""

    def bystanders(self) -> set[str]:
        """Names in the repository, and containers: what a call may leave behind."""

    def stop_engine(self) -> None:
        """From now on the engine cannot be reached."""


class MemoryWorld:
    """The double."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.repository = "prebuilt-test/env"
        self.base, self.absent = "base:1", "absent:1"

    async def start(self) -> None:
        self.engine.add_base(_memory_base(self.base, "1"), _memory_probe())
        self.name_twin()

    def name_twin(self) -> None:
        self.engine.bases["base:same"] = replace(self.engine.bases[self.base], reference="base:same")

    async def close(self) -> None:
        await self.engine.close()

    def own_base(self) -> str:
        self.engine.add_base(_memory_base("base:own", "2"), _memory_probe())
        return "base:own"

    def forget(self, reference: str) -> None:
        if reference in self.engine.bases:
            del self.engine.bases[reference]
        else:
            self.engine.remove(reference)

    def name(self, image_id: str, reference: str) -> None:
        self.engine.name(image_id, reference)

    def name_foreign(self, reference: str) -> None:
        self.engine.name("", reference)

    def use(self, image_id: str) -> None:
        self.engine.in_use.add(image_id)

    def images(self, digest: str) -> set[str]:
        return {image_id for image_id, plan in self.engine.plans.items() if plan.digest == digest}

    def config(self, image_id: str) -> Mapping[str, Any]:
        return self.engine.config(image_id)

    def bystanders(self) -> set[str]:
        return set(self.engine.names)

    def stop_engine(self) -> None:
        self.engine.unavailable = EngineUnavailable("The container engine cannot be reached.")


def _memory_base(reference: str, digit: str) -> BaseImage:
    diff_ids = ("sha256:" + digit * 64,)
    config = {"Cmd": ["start.py"], "Env": ["PATH=/usr/bin"], "Labels": {"vendor": "somebody"}, "User": "1000"}
    platform = {"os": "linux", "architecture": "amd64"}
    return BaseImage(
        reference=reference,
        image_id="sha256:" + digit * 64,
        digest=base_digest(diff_ids=diff_ids, config=config, **platform),
        diff_ids=diff_ids,
        config=config,
        **platform,
    )


def _memory_probe() -> BaseProbe:
    site = "/usr/lib/python3.11/site-packages"
    return BaseProbe(
        python_version="3.11.2",
        implementation="cpython",
        abi="cp311",
        cache_tag="cpython-311",
        machine="x86_64",
        glibc=(2, 36),
        interpreter="/usr/bin/python3",
        stdlib="/usr/lib/python3.11",
        virtual=False,
        markers={"python_version": "3.11"},
        scheme=InstallScheme(purelib=site, platlib=site, headers="/usr/include", scripts="/usr/bin", data="/usr"),
        user="jovyan",
        uid=1000,
        gid=100,
        home="/home/jovyan",
        folders={site: FolderEntry(mode=0o755, uid=0, gid=0)},
    )


class DockerWorld:
    """The engine that the environment names, with `PREBUILT_SPAWNER_TEST_BASE` as the base."""

    def __init__(self, folder: Path, *, handover: Handover = "auto") -> None:
        self._handover = handover
        self._word = "t" + secrets.token_hex(4)
        self._folder = folder
        self.repository = f"prebuilt-contract-{self._word}/env"
        self.base, self.absent = TEST_BASE, f"localhost:1/{self._word}/absent:1"
        self._containers: list[str] = []
        self._digests: set[str] = set()
        self._client = docker.APIClient(**docker.utils.kwargs_from_env(), version="auto", timeout=60)
        self._others: list[DockerEngine] = []

    async def start(self) -> None:
        self._client.inspect_image(self.base)
        self.engine = DockerEngine(repository=self.repository, cache_dir=self._folder, handover=self._handover)

    async def close(self) -> None:
        await self.engine.close()
        for other in self._others:
            await other.close()
        for container in self._containers:
            self._client.remove_container(container, force=True, v=True)
        for name in self._names():
            self._client.remove_image(name)
        for digest in self._digests:
            for image_id in self.images(digest):
                self._client.remove_image(image_id, force=True)
        self._client.close()

    def own_base(self, *, tag: str = "own", python3: str = "", changes: Iterable[str] = ()) -> str:
        """As above; with `python3` a shell script takes the place of the interpreter. `changes` are instructions."""
        name = f"{self.repository}-base:{tag}"
        container = self._client.create_container(self.base, command=["true"])["Id"]
        path = [f"ENV PATH=/opt/{self._word}/bin:/usr/bin:/bin"] if python3 else []
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            _add(archive, f"opt/{self._word}/{tag}", "")
            if python3:
                _add(archive, f"opt/{self._word}/bin/python3", f"#!/bin/sh\n{python3}\n")
        try:
            self._client.put_archive(container, "/", content.getvalue())
            self._client.commit(container, repository=name.rpartition(":")[0], tag=tag, changes=[*path, *changes])
        finally:
            self._client.remove_container(container)
        return name

    def limited(self, limits: BaseLimits) -> DockerEngine:
        """Another process's engine object, with limits of its own."""
        engine = DockerEngine(repository=self.repository, cache_dir=self._folder, base_limits=limits)
        self._others.append(engine)
        return engine

    def probing(self, bases: Iterable[BaseImage], *, running: bool = False) -> int:
        """How many containers there are that ask these bases about themselves."""
        filters = [{"label": f"{PROBE_LABEL}={base.digest}"} for base in bases]
        return sum(len(self._client.containers(all=not running, filters=each)) for each in filters)

    def forget(self, reference: str) -> None:
        self._client.remove_image(reference)

    def name(self, image_id: str, reference: str) -> None:
        repository, _, tag = reference.rpartition(":")
        self._client.tag(image_id, repository, tag)

    def name_foreign(self, reference: str) -> None:
        self.name(self.base, reference)

    def use(self, image_id: str) -> None:
        self._containers.append(self._client.create_container(image_id, command=["true"])["Id"])

    def images(self, digest: str) -> set[str]:
        self._digests.add(digest)
        # All of them, also those without a name; a broken record may be listed and gone at the next look.
        found = self._client.images(all=True, filters={"label": f"{DIGEST_LABEL}={digest}"})
        return {image["Id"] for image in found}

    def config(self, image_id: str) -> Mapping[str, Any]:
        return self._client.inspect_image(image_id)["Config"]

    def inspect(self, reference: str) -> Mapping[str, Any]:
        """What the engine says of an image."""
        found: Mapping[str, Any] = self._client.inspect_image(reference)
        return found

    def created(self, image_id: str) -> str:
        """When an image says that it was made."""
        return str(self._client.inspect_image(image_id)["Created"])

    def has(self, image_id: str) -> bool:
        """Whether the engine has it."""
        return image_id in {image["Id"] for image in self._client.images(all=True)}

    def made_of(self, image_id: str) -> set[str]:
        """IDs of all images that a builder made of this one, directly or not."""
        parents = {image["Id"]: image["ParentId"] for image in self._client.images(all=True)}
        found = {image_id}
        while more := {each for each, parent in parents.items() if parent in found} - found:
            found |= more
        return found - {image_id}

    def unname(self, name: str) -> None:
        """Take a name away from an image, which stays."""
        container = self._client.create_container(name, ["true"])["Id"]
        try:
            self._client.remove_image(name, force=True, noprune=True)
        finally:
            self._client.remove_container(container)

    def remove(self, image_id: str) -> None:
        """Remove an image without a name, if it is there."""
        with contextlib.suppress(ImageNotFound):
            self._client.remove_image(image_id, noprune=True)

    def load(self, plan: ImagePlan, *, labels: Mapping[str, str]) -> str:
        """The ID of an image that is loaded with these labels only, made in 1980."""
        plan = replace(plan, labels=labels)
        diff_ids = [layer_digest(layer) for layer in plan.layers]
        image_id, chunks = docker_archive(plan, derived_config(plan, diff_ids), diff_ids)
        self._client.load_image(b"".join(chunks))
        return image_id

    def images_on(self, base: BaseImage) -> set[str]:
        """IDs of all images that have the layers of this one and more, named or not."""
        found = set()
        for image in self._client.images(all=True):
            with contextlib.suppress(ImageNotFound):  # others use the engine
                layers = tuple(self._client.inspect_image(image["Id"])["RootFS"].get("Layers") or ())
                if layers != base.diff_ids and layers[: len(base.diff_ids)] == base.diff_ids:
                    found.add(image["Id"])
        return found

    def bystanders(self) -> set[str]:
        containers = self._client.containers(all=True, filters={"label": "prebuilt_spawner.probe"})
        return {*self._names(), *(container["Id"] for container in containers)}

    def stop_engine(self) -> None:
        self._others.append(self.engine)
        self.engine = DockerEngine(
            repository=self.repository,
            cache_dir=self._folder,
            client_kwargs={"base_url": f"unix://{self._folder}/no.sock", "version": "1.41"},
        )

    def _names(self) -> list[str]:
        names = [name for image in self._client.images() for name in image.get("RepoTags") or ()]
        return [name for name in names if name.startswith(self.repository)]


def _add(archive: tarfile.TarFile, path: str, text: str) -> None:
    entry = tarfile.TarInfo(path)
    entry.mode, entry.size = 0o755, len(text.encode())
    archive.addfile(entry, io.BytesIO(text.encode()))
