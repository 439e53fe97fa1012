"""What a build needs of the world, and the values that cross the border.

Each interface has a real implementation in `prebuilt_spawner.adapters` and an in-memory one for tests; both
pass the same contract tests. All raise the errors of `prebuilt_spawner.errors` only, and all can be cancelled: a call
that is cancelled stops its threads' and processes' work soon after.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..environment.base import BaseImage, BaseProbe
from ..environment.lock import Lock, LockedFile, LockedWheel
from ..image.bytecode import Module
from ..image.fragment import Fragment
from ..image.layer import ImagePlan, Layer, LowerLayers
from ..image.stacking import Stack
from .events import Report, ignore
from .lookups import Lookup

if TYPE_CHECKING:
    from .sources import MadeWheel


@dataclass(frozen=True, kw_only=True)
class DerivedImage:
    """An image of ours that an engine holds.

    Attributes:
        reference: The name it was found under or got, `repository:digest`; "" while it has none.
        image_id: The engine's own ID.
        digest: The environment digest, from its label.
        base_digest: The base's identity by content, from its label.
        size_bytes: As the engine counts it, shared layers included.
        diff_ids: The uncompressed layers' digests (`sha256:…`), lowest first, those of the base included.
    """

    reference: str
    image_id: str
    digest: str
    base_digest: str
    size_bytes: int
    diff_ids: tuple[str, ...]


class Carrier(Protocol):
    """Takes layers of an environment ahead of its image."""

    def add(self, layer: Layer) -> bool:
        """Begin to hand this layer over, on top of those before. False where the engine does not take it so."""

    async def settle(self) -> LowerLayers | None:
        """Wait for all that were added: what the rest of the image can be stacked on, until the carrier is left. None
        where there is nothing, or where it failed: then the layers are to be sent with the image."""


class Engine(Protocol):
    """A container engine that holds images.

    Everything may raise `EngineUnavailable` (cannot be reached) and `EngineFailure` (refused, broke off).
    """

    async def resolve_base(self, reference: str) -> BaseImage:
        """The base under this name, pulled when absent.

        Raises:
            MalformedRequest: It is an image of ours, which nobody may name as a base.
            BaseImageUnavailable: It is absent and cannot be pulled.
        """

    async def probe(self, base: BaseImage) -> BaseProbe:
        """What the base's interpreter says, without a network; once for each base digest, then from memory.

        Raises:
            BaseImageUnavailable: It holds no CPython, or it does not run.
        """

    async def known_base(self, reference: str) -> tuple[BaseImage, BaseProbe] | None:
        """The base under this name and its probe, where both are known without pulling or probing. None elsewhere, and
        for what is no base."""

    def hold(self, image_id: str) -> AbstractAsyncContextManager[None]:
        """While entered, the image's layers stay even if all its names go.

        Raises:
            LayersGone: There is no such image.
        """

    async def find(self, reference: str) -> DerivedImage | None:
        """The image of ours under this name: None where there is none, or where what is there is not ours
        (no label, or a label that contradicts the tag). Never pulls."""

    async def present(self, references: Collection[str]) -> Collection[str]:
        """Those of these names under which `find` finds an image."""

    def carry(self, base: BaseImage, digest: str) -> AbstractAsyncContextManager[Carrier]:
        """While entered, layers of an environment on this base can be handed over before it is known as a whole; what
        they were stacked on need not be there afterwards.

        Args:
            digest: The environment digest.
        """

    async def assemble(self, plan: ImagePlan, *, report: Report) -> DerivedImage:
        """Make the planned image, check that it can be started, and return it without a name. Leaves nothing behind
        when it fails.

        Raises:
            LayersGone: The layers that it is stacked on are not there.
        """

    async def tag(self, image: DerivedImage, reference: str) -> DerivedImage:
        """Name the image, unless an image of ours has that name already: the first wins, and is returned.

        Raises:
            LayersGone: The image has gone.
        """

    async def discard(self, image: DerivedImage) -> None:
        """Remove an image that has no name and that no container uses; otherwise do nothing."""

    async def close(self) -> None:
        """Release connections and threads."""


@dataclass(frozen=True, kw_only=True)
class ResolveRequest:
    """A question to the resolver.

    Attributes:
        requirements: Canonical requirements, as `environment.requirements` makes them.
        probe: The base that they are for.
        preferences: Versions by normalised name to keep where the request allows it, before the base's and newer ones.
        made: Wheels that were built from source, to choose from besides those of the index.
    """

    requirements: tuple[str, ...]
    probe: BaseProbe
    preferences: Mapping[str, str] = field(default_factory=dict)
    made: tuple[MadeWheel, ...] = ()


class Resolver(Protocol):
    """Finds the wheels that satisfy a request beside what the base holds."""

    async def resolve(self, request: ResolveRequest) -> Lock:
        """The wheels to add. What the base satisfies already is not in the lock; a wheel in the lock whose
        name the base has replaces the base's.

        Raises:
            UnresolvableRequest: Nothing satisfies it; its `sources` say what could be built for it from source.
            IndexUnavailable: The index did not answer, or answered nonsense.
        """


class BytecodeCompiler(Protocol):
    """Has the base's own interpreter compile modules; none of them is run."""

    async def compile(self, base: BaseImage, probe: BaseProbe, modules: Sequence[Module]) -> Mapping[str, bytes]:
        """The pyc files (unchecked hash, PEP 552) by `Module.target`, of those that compile. The same modules give
        the same bytes, always.

        Raises:
            LayersGone: The base is not there any more.
            EngineUnavailable, EngineFailure: The engine cannot be reached, or broke off.
            StorageFailure: A source cannot be read.
        """

    async def close(self) -> None:
        """Stop what runs, and leave no container behind."""


class WheelStore(Protocol):
    """Wheels and their fragments, fetched and made once, kept on the hub's disk."""

    async def fetch(
        self,
        wheels: Sequence[LockedFile],
        *,
        report: Report,
        max_unsized_bytes: int | None = None,
        for_base: tuple[BaseImage, BaseProbe] | None = None,
    ) -> None:
        """Have every file of an index here, verified against its SHA-256.

        Args:
            max_unsized_bytes: How much those may have together whose size the lock does not say; None is no limit.
            for_base: What `fragments` will be asked for next, which may begin with wheels as they come.

        Raises:
            PolicyRefusal: It would be more.
            IndexUnavailable: A wheel cannot be downloaded, or is not the one that was locked.
            StorageFailure: It cannot be written.
        """

    def path(self, file: LockedFile) -> Path:
        """Where a file is that has been fetched."""

    async def fragments(
        self,
        wheels: Sequence[LockedWheel],
        base: BaseImage,
        probe: BaseProbe,
        *,
        report: Report,
        made: Callable[[Fragment], None] = ignore,
    ) -> tuple[Fragment, ...]:
        """A fragment for each wheel, in the wheels' order, for the base's scheme, compiled by its interpreter.

        Args:
            made: Called with each as soon as it is there, those first that were there before.

        Raises:
            UnbuildableEnvironment: A wheel is malformed or tries to write where it may not.
            StorageFailure: It cannot be written.
            LayersGone, EngineUnavailable, EngineFailure: Its modules cannot be compiled.
        """

    async def close(self) -> None:
        """Stop what runs and release connections."""


@dataclass(frozen=True, kw_only=True)
class StoredLock:
    """A lock as the ledger remembers it.

    Attributes:
        id: The ledger's own number for it.
        request_digest: What was asked, on which base content.
        lineage: What was asked, whatever the content of the base (and of the profile's lock) is.
        lock: The wheels.
        generation: The id of the lock that it goes back to, ancestor by ancestor: one that was resolved from no
            pins of a user's. Its own id where it has no ancestor.
        profile_lock_id: The profile's lock that the packages were added to; None where they stand on none.
    """

    id: int
    request_digest: str
    lineage: str
    lock: Lock
    generation: int
    profile_lock_id: int | None = None


class Ledger(Protocol):
    """The memory: which lock answers which request, and which environments exist.

    An *owner* is `user:<name>` or `profile:<slug>`; it holds at most one lock for a request digest. A *scope* keeps
    the locks of free lists, of each profile, and of what people add to each profile apart: "", `profile:<slug>`,
    `extras:<slug>`. The *newest* lock is the last one of the newest generation.
    """

    async def stored(self, lock_id: int) -> StoredLock | None:
        """The lock of this number."""

    async def held(self, *, owner: str, request_digest: str) -> StoredLock | None:
        """The lock that this owner holds for this very request."""

    async def held_in_lineage(self, *, owner: str, lineage: str) -> StoredLock | None:
        """The lock that this owner held last for this request on whatever content of the base."""

    async def newest(self, *, scope: str, request_digest: str) -> StoredLock | None:
        """The newest lock of this scope for this very request."""

    async def newest_in_lineage(self, *, scope: str, lineage: str) -> StoredLock | None:
        """The newest lock of this scope for this request on whatever content of the base."""

    async def descendant(self, *, ancestor_id: int, request_digest: str) -> StoredLock | None:
        """The lock that was resolved from the ancestor's pins for this request."""

    async def look_up(self, lookups: Sequence[Lookup]) -> Sequence[StoredLock | None]:
        """The answers of the five methods above to many questions, in their order."""

    async def remember(
        self,
        *,
        scope: str,
        request_digest: str,
        lineage: str,
        lock: Lock,
        ancestor_id: int | None,
        profile_lock_id: int | None = None,
    ) -> StoredLock:
        """Store a lock, unless one with the same wheels is there for this request: of the same ancestor, or,
        without an ancestor, the newest of the scope, if it is of the newest generation of the lineage. Then that
        one is returned."""

    async def hold(self, *, owner: str, lock: StoredLock) -> None:
        """From now on the owner holds this lock for its request."""

    async def use_environment(self, digest: str) -> None:
        """The image of this environment is about to be looked for and used, so from now on nobody removes it. Where
        somebody just does, this waits for the end of that: whoever looks afterwards sees what is there."""

    async def record_environment(
        self,
        *,
        digest: str,
        base_digest: str,
        lock: Lock,
        size_bytes: int,
        user: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """An environment was made or used now, by a user who chose these options; see `recent`. What cannot be kept of
        the choice is left out without an error."""

    async def recent(self, *, user: str, since: datetime | None = None, limit: int = 5) -> Sequence[Mapping[str, Any]]:
        """The options that this user chose last, newest first, those that mean the same once. None are kept that are
        empty, `refresh` is not among them, and no more than 20 are kept.

        Args:
            since: When the user was made: names are given again. Aware, or naive in UTC as JupyterHub keeps it.
        """

    async def record_image(
        self, stack: Stack, *, layout_version: int, base_digest: str, lock: Lock, size_bytes: int
    ) -> None:
        """The image of an environment was made, with these layers on its base."""

    async def stacks(
        self, *, base_digest: str, layout_version: int, wheels: Collection[str], limit: int = 20
    ) -> Sequence[Stack]:
        """The stacks on this base that have most of these wheels (SHA-256), of this layout version. Whether their
        images still exist, the engine knows."""

    async def popularity(self, wheels: Collection[str]) -> Mapping[str, int]:
        """How many recorded stacks have a wheel, by its SHA-256; those that none has may be left out."""

    async def package_names(self, *, limit: int = 1000) -> Collection[str]:
        """Normalised names of the packages in the environments that were used last, so many of these at most."""

    async def close(self) -> None:
        """Release connections."""
