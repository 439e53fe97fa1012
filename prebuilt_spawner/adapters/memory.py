"""In-memory doubles of the engine, the resolver and the wheel store, for tests. Nothing is downloaded, run or written.

They follow the rules of `prebuilt_spawner.build.interface`, and pass the same contract tests as the real ones.
Each counts its calls, and fails or waits where a test says so. `SqlLedger("sqlite://")` is the ledger to go with them.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from ..build.events import BuildEvent, Phase, Report, ignore
from ..build.failure import SOURCE_ADVICE, TELL, Failure, Kind
from ..build.interface import DerivedImage, ResolveRequest
from ..environment.base import BaseImage, BaseProbe
from ..environment.lock import Lock, LockedFile, LockedWheel
from ..errors import (
    BaseImageUnavailable,
    EngineFailure,
    LayersGone,
    MalformedRequest,
    PolicyRefusal,
    PrebuiltError,
    StorageFailure,
    UnresolvableRequest,
)
from ..image.archive import layer_digest, read_parts
from ..image.config import derived_config, sha256_of
from ..image.fragment import Fragment
from ..image.layer import ImagePlan, Layer, LowerLayers
from ..image.names import BASE_DIGEST_LABEL, DIGEST_LABEL
from .memory_carrier import MemoryCarrier
from .memory_index import Candidate, Search
from .memory_switches import Switches


class MemoryEngine:
    """Implements `prebuilt_spawner.build.interface.Engine`.

    Attributes:
        switches: By the names of the interface's methods.
        unavailable: What every method raises while it is set, as a stopped engine would.
        bases: The base under each name; tests add, move and remove them.
        plans: What each image of ours was made from, by image ID.
        in_use: IDs of images that containers use.
    """

    def __init__(self) -> None:
        self.switches = Switches()
        self.unavailable: PrebuiltError | None = None
        self.bases: dict[str, BaseImage] = {}
        self.plans: dict[str, ImagePlan] = {}
        self.in_use: set[str] = set()
        self._probes: dict[str, BaseProbe] = {}
        self._probed: set[str] = set()
        self._names: dict[str, str] = {}
        self._held: Counter[str] = Counter()
        self._held_layers: dict[str, tuple[str, ...]] = {}

    def add_base(self, base: BaseImage, probe: BaseProbe) -> None:
        """Give the engine a base under its reference; a base that has that name already loses it."""
        self.bases[base.reference] = base
        self._probes[base.digest] = probe

    @property
    def names(self) -> Mapping[str, str]:
        """Image ID of ours by name."""
        return dict(self._names)

    def held(self, image_id: str) -> bool:
        """Whether somebody holds the image now."""
        return self._held[image_id] > 0

    async def resolve_base(self, reference: str) -> BaseImage:
        """See `Engine.resolve_base`; there is no registry to pull from."""
        await self._pass("resolve_base")
        if self._names.get(reference):
            raise MalformedRequest(
                f"The image {reference} is a prepared environment, which cannot be a base image. Choose another image.",
                about="image",
            )
        if reference not in self.bases:
            raise BaseImageUnavailable(f"The base image {reference} is not there and cannot be pulled. {TELL}")
        return self.bases[reference]

    async def probe(self, base: BaseImage) -> BaseProbe:
        """See `Engine.probe`."""
        await self._pass("probe")
        if base.digest not in self._probes:
            raise BaseImageUnavailable(f"The Python of the base image {base.reference} cannot be asked. {TELL}")
        self._probed.add(base.digest)
        return self._probes[base.digest]

    async def known_base(self, reference: str) -> tuple[BaseImage, BaseProbe] | None:
        """See `Engine.known_base`."""
        await self._pass("known_base")
        base = self.bases.get(reference)
        return None if base is None or base.digest not in self._probed else (base, self._probes[base.digest])

    @asynccontextmanager
    async def hold(self, image_id: str) -> AsyncIterator[None]:
        """See `Engine.hold`."""
        await self._pass("hold")
        layers = self._layers_of(image_id)
        if layers is None:
            raise LayersGone("An image that was needed has gone. Start again.")
        self._held[image_id] += 1
        self._held_layers[image_id] = layers
        try:
            yield
        finally:
            self._held[image_id] -= 1

    async def find(self, reference: str) -> DerivedImage | None:
        """See `Engine.find`."""
        await self._pass("find")
        return self._found(reference)

    async def present(self, references: Collection[str]) -> set[str]:
        """See `Engine.present`."""
        await self._pass("present")
        return {reference for reference in references if self._found(reference) is not None}

    @asynccontextmanager
    async def carry(self, base: BaseImage, digest: str) -> AsyncIterator[MemoryCarrier]:
        """See `Engine.carry`."""
        carrier = MemoryCarrier(self.plans, base, digest)
        try:
            yield carrier
        finally:
            carrier.leave()

    async def assemble(self, plan: ImagePlan, *, report: Report) -> DerivedImage:
        """See `Engine.assemble`. As in a real engine, one plan gives one image ID."""
        report(BuildEvent(phase=Phase.SAVING, message="Saving to the engine"))
        await self._pass("assemble")
        self._require(plan.lower)
        if plan.labels.get(DIGEST_LABEL) != plan.digest or not all(map(_is_archive, plan.layers)):
            raise EngineFailure(f"The container engine did not store the image as it was sent. {TELL}")
        report(BuildEvent(phase=Phase.CHECKING, message="Checking the image"))
        await asyncio.sleep(0)
        image_id = sha256_of(_config(plan))
        self.plans[image_id] = plan
        return self.derived(image_id)

    async def tag(self, image: DerivedImage, reference: str) -> DerivedImage:
        """See `Engine.tag`."""
        await self._pass("tag")
        present = self._found(reference)
        if present is not None:
            return present
        if image.image_id not in self.plans:
            raise LayersGone("The image that was made has gone. Start again.")
        self._names[reference] = image.image_id
        return self.derived(image.image_id, reference=reference)

    async def discard(self, image: DerivedImage) -> None:
        """See `Engine.discard`."""
        await self._pass("discard")
        if image.image_id not in self._names.values() and image.image_id not in self.in_use:
            self.plans.pop(image.image_id, None)

    async def close(self) -> None:
        """See `Engine.close`."""
        self.switches.calls["close"] += 1

    def config(self, image_id: str) -> dict[str, Any]:
        """The runtime configuration of an image of ours, as an engine shows it."""
        config: dict[str, Any] = json.loads(_config(self.plans[image_id]))["config"]
        return config

    def name(self, image_id: str, reference: str) -> None:
        """Give an image of ours a name, or "" for an image of somebody else, as an administrator may."""
        self._names[reference] = image_id

    def remove(self, reference: str) -> None:
        """Take an image of ours away with its name, as an administrator may."""
        image_id = self._names.pop(reference)
        if image_id not in self._names.values():
            self.plans.pop(image_id, None)

    async def _pass(self, method: str) -> None:
        await self.switches.pass_through(method)
        if self.unavailable is not None:
            raise self.unavailable

    def _layers_of(self, image_id: str) -> tuple[str, ...] | None:
        """The layers of an image that is there by itself."""
        bases = (base.diff_ids for base in self.bases.values() if base.image_id == image_id)
        plan = self.plans.get(image_id)
        return next(bases, None) if plan is None else _diff_ids(plan)

    def _require(self, lower: LowerLayers) -> None:
        held = (layers for image_id, layers in self._held_layers.items() if self.held(image_id))
        present = [*(base.diff_ids for base in self.bases.values()), *map(_diff_ids, self.plans.values()), *held]
        if not any(layers[: len(lower.diff_ids)] == lower.diff_ids for layers in present):
            raise LayersGone("An image that was needed has gone. Start again.")

    def _found(self, reference: str) -> DerivedImage | None:
        image_id = self._names.get(reference)
        if not image_id:
            return None
        image = self.derived(image_id, reference=reference)
        return image if reference.endswith(f":{image.digest}") else None

    def derived(self, image_id: str, *, reference: str = "") -> DerivedImage:
        """An image of ours as the methods return it."""
        plan = self.plans[image_id]
        return DerivedImage(
            reference=reference,
            image_id=image_id,
            digest=plan.labels[DIGEST_LABEL],
            base_digest=plan.labels.get(BASE_DIGEST_LABEL, ""),
            size_bytes=sum(layer.size_bytes for layer in plan.layers),
            diff_ids=_diff_ids(plan),
        )


def _config(plan: ImagePlan) -> bytes:
    return derived_config(plan, [layer_digest(layer) for layer in plan.layers])


def _diff_ids(plan: ImagePlan) -> tuple[str, ...]:
    return (*plan.lower.diff_ids, *map(layer_digest, plan.layers))


def _is_archive(layer: Layer) -> bool:
    content = b"".join(read_parts(layer.parts))
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            archive.getmembers()
    except tarfile.TarError:
        return False
    return True


class MemoryResolver:
    """Implements `prebuilt_spawner.build.interface.Resolver` over a few packages that tests publish.

    Tries versions in order (preferred, the base's, newest first) and goes back where they conflict.

    Attributes:
        switches: For `resolve`.
        requests: What was asked.
    """

    def __init__(self, *, protected: Iterable[str] = ()) -> None:
        self.switches = Switches()
        self.requests: list[ResolveRequest] = []
        self._protected = frozenset(protected)
        self._index: dict[str, dict[Version, Candidate]] = {}
        self._sources: dict[str, dict[Version, tuple[Requirement, ...]]] = {}

    def publish_source(self, name: str, version: str, *requires: str) -> None:
        """Put a version on the index that has no wheel; `requires` is what the wheel turns out to say."""
        lines = tuple(map(Requirement, requires))
        self._sources.setdefault(canonicalize_name(name), {})[Version(version)] = lines

    def publish(self, name: str, version: str, *requires: str, size_bytes: int | None = 1000) -> LockedWheel:
        """Put a wheel for every platform on the index; `requires` are its `Requires-Dist` lines."""
        name = canonicalize_name(name)
        filename = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        wheel = LockedWheel(
            name=name,
            version=str(Version(version)),
            filename=filename,
            url=f"https://index.example/{filename}",
            sha256=hashlib.sha256(filename.encode()).hexdigest(),
            size_bytes=size_bytes,
        )
        self._index.setdefault(name, {})[Version(version)] = Candidate(
            version=Version(version), requires=tuple(map(Requirement, requires)), wheel=wheel
        )
        return wheel

    def withdraw(self, name: str, version: str) -> None:
        """Take a wheel from the index."""
        del self._index[canonicalize_name(name)][Version(version)]

    async def resolve(self, request: ResolveRequest) -> Lock:
        """See `Resolver.resolve`."""
        self.requests.append(request)
        await self.switches.pass_through("resolve")
        index = {name: dict(versions) for name, versions in self._index.items()}
        for made in (one.wheel for one in request.made):
            version = Version(made.version)
            requires = self._sources[made.name][version]
            index.setdefault(made.name, {})[version] = Candidate(version=version, requires=requires, wheel=made)
        try:
            chosen = Search(index, self._protected, request).run()
        except UnresolvableRequest as error:
            raise self._source_only(request, index) or error from error
        wheels = (candidate.wheel for candidate in chosen.values() if candidate.wheel is not None)
        return Lock(wheels=tuple(sorted(wheels, key=lambda wheel: wheel.name)))

    def _source_only(
        self, request: ResolveRequest, index: Mapping[str, Mapping[Version, Candidate]]
    ) -> PrebuiltError | None:
        """What to say where something has only a source that could satisfy what is wanted of it."""
        candidates = (candidate for versions in index.values() for candidate in versions.values())
        wanted = [*map(Requirement, request.requirements), *(line for one in candidates for line in one.requires)]
        for requirement in wanted:
            name = canonicalize_name(requirement.name)
            there = self._sources.get(name, {})
            if any(version in requirement.specifier and version not in index.get(name, {}) for version in there):
                what = f"{name} has no wheel, only source, which this hub does not build."
                error = Failure(kind=Kind.SOURCE_ONLY, what=what, advice=SOURCE_ADVICE, package=name).error()
                if isinstance(error, UnresolvableRequest):
                    error.sources = (f"{name}{requirement.specifier}",)
                return error
        return None


class MemoryWheelStore:
    """Implements `prebuilt_spawner.build.interface.WheelStore`: every fragment is empty.

    Attributes:
        switches: For `fetch` and `fragments`.
        bad_wheels: What fetching or preparing the wheel of this name raises.
        fetched: The SHA-256 of every wheel that is here.
    """

    def __init__(self) -> None:
        self.switches = Switches()
        self.bad_wheels: dict[str, PrebuiltError] = {}
        self.fetched: set[str] = set()

    async def fetch(
        self,
        wheels: Sequence[LockedFile],
        *,
        report: Report,
        max_unsized_bytes: int | None = None,
        for_base: tuple[BaseImage, BaseProbe] | None = None,
    ) -> None:
        """See `WheelStore.fetch`; reports only what is not here yet."""
        await self.switches.pass_through("fetch")
        missing = [wheel for wheel in wheels if wheel.sha256 not in self.fetched]
        unsized = sum(wheel.size_bytes is None for wheel in wheels)  # of which each has 1000 bytes
        if max_unsized_bytes is not None and 1000 * unsized > max_unsized_bytes:
            raise PolicyRefusal("These packages have more bytes than are allowed. Leave some out.", about="packages")
        total_bytes = sum(wheel.size_bytes or 0 for wheel in missing)
        event = BuildEvent(phase=Phase.DOWNLOADING, message="Downloading packages", total=total_bytes)
        for wheel in missing:
            if wheel.name in self.bad_wheels:
                raise self.bad_wheels[wheel.name]
            self.fetched.add(wheel.sha256)
            event = replace(event, done=event.done + (wheel.size_bytes or 0))
            report(event)

    def path(self, file: LockedFile) -> Path:
        """See `WheelStore.path`; there is nothing."""
        return Path("wheels", file.sha256, file.filename)

    async def fragments(
        self,
        wheels: Sequence[LockedWheel],
        base: BaseImage,
        probe: BaseProbe,
        *,
        report: Report,
        made: Callable[[Fragment], None] = ignore,
    ) -> tuple[Fragment, ...]:
        """See `WheelStore.fragments`."""
        await self.switches.pass_through("fragments")
        for wheel in wheels:
            if wheel.name in self.bad_wheels:
                raise self.bad_wheels[wheel.name]
            if wheel.source is None and wheel.sha256 not in self.fetched:
                raise StorageFailure("A package that was downloaded has gone. Start again.", detail=wheel.filename)
        report(BuildEvent(phase=Phase.PREPARING, message="Preparing packages", done=len(wheels), total=len(wheels)))
        fragments = tuple(Fragment(wheel_sha256=each.sha256, distribution=each.name, files=()) for each in wheels)
        for fragment in fragments:
            made(fragment)
        return fragments

    async def close(self) -> None:
        """See `WheelStore.close`."""
        self.switches.calls["close"] += 1
