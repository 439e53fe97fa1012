"""From a request to an image that can be started."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from .._version import __version__
from ..environment.base import BaseImage, BaseProbe
from ..environment.closure import protected_closure
from ..environment.digest import environment_digest
from ..environment.lock import Lock
from ..environment.policy import Policy
from ..environment.reference import environment_reference
from ..errors import LayersGone
from ..image.files import own_files
from ..image.fragment import Fragment
from ..image.layer import LAYOUT_VERSION, ImagePlan
from ..image.names import BASE_DIGEST_LABEL, DIGEST_LABEL, PACKAGES_LABEL, VERSION_LABEL
from ..image.plan import Contents, contents
from ..image.session import session_environment
from ..image.stacking import Stack, StackedLayer
from .ahead import Ahead, is_worth_it
from .events import BuildEvent, Phase, Report, ignore
from .interface import DerivedImage, Engine, Ledger, WheelStore
from .shared_cache import SharedCache
from .source_builds import SourceBuilds

_log = logging.getLogger(__name__)

_MAX_LOOKS = 5
"""How many images are looked for before an environment is stacked on its base alone."""


@dataclass(frozen=True, kw_only=True)
class ProfileRequest:
    """The profile that a request stands on.

    Attributes:
        slug: Its name in options.
        requirements: Its own packages, canonical.
        pylock: The text of the pylock file that the administrator keeps for it; "" where there is none.
    """

    slug: str
    requirements: tuple[str, ...] = ()
    pylock: str = ""


@dataclass(frozen=True, kw_only=True)
class EnvironmentRequest:
    """What one start asks for, after policy.

    Attributes:
        user: Name of the user whose server it is for.
        requirements: Canonical; the profile's and the user's own, merged.
        base: The base image's reference.
        profile: None where no profile applies.
        refresh: Make a newer lock instead of using the one that is there.
        may_refresh_profile: Whether `refresh` may renew the profile's own lock, which is everybody's: for
            administrators.
        options: The user options as JupyterHub stores them, to be offered again; empty ones are not kept.
        policy: What may come of what the user adds; the requirements have passed it. None is no limit.
    """

    user: str
    requirements: tuple[str, ...]
    base: str
    profile: ProfileRequest | None = None
    refresh: bool = False
    may_refresh_profile: bool = False
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    policy: Policy | None = None

    @property
    def own_requirements(self) -> tuple[str, ...]:
        """The user's, without the profile's. Empty where the request is everybody's."""
        given = set(self.profile.requirements) if self.profile is not None else set()
        return tuple(requirement for requirement in self.requirements if requirement not in given)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment that is decided: what it is called, and everything that making its image needs.

    Attributes:
        digest: The environment digest, 64 hex digits.
        image: The reference to start, `[<registry>/]<repository>:<digest>`.
        base: What it stands on.
        probe: What the base's interpreter says.
        lock: What it adds.
    """

    digest: str
    image: str
    base: BaseImage
    probe: BaseProbe
    lock: Lock


class Debts(Protocol):
    """Who is told what was made here; see `prebuilt_spawner.build.pushes.Pushes`."""

    async def owe(self, environment: Environment) -> None:
        """The environment's image was made here."""

    async def close(self) -> None:
        """Push nothing more."""


class Provider:
    """Names environments, and makes the image of one.

    Args:
        repository: Where derived images are named.
        sources: Has the wheels that are built from source; None where there are none.
        immutable: Whether sessions may not change their environment; the images say so.
        protected: Names of the base's server packages. No wheel may touch or hide files of theirs or of what they need.
        registry: The registry that is in the names of images; "" for none.
        shared: What others have made there; None for nothing.
        pushes: Who brings there what is made here; None for nobody.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        wheel_store: WheelStore,
        ledger: Ledger,
        repository: str,
        sources: SourceBuilds | None = None,
        immutable: bool = True,
        protected: frozenset[str] = frozenset(),
        registry: str = "",
        shared: SharedCache | None = None,
        pushes: Debts | None = None,
    ) -> None:
        self._engine = engine
        self._wheel_store = wheel_store
        self._ledger = ledger
        self._repository = repository
        self._sources = sources
        self._immutable = immutable
        self._protected = protected
        self._registry = registry
        self._shared = shared
        self._pushes = pushes
        self._closures: dict[str, frozenset[str]] = {}
        """Names of the server's packages and all that they need, by base digest."""

    def name(self, *, base: BaseImage, probe: BaseProbe, lock: Lock) -> Environment:
        """Which environment this lock makes of this base; its image need not exist."""
        digest = environment_digest(
            lock,
            base_digest=base.digest,
            platform=base.platform,
            layout_version=LAYOUT_VERSION,
            immutable=self._immutable,
        )
        image = environment_reference(self._repository, digest, self._registry)
        return Environment(digest=digest, image=image, base=base, probe=probe, lock=lock)

    async def present(self, environment: Environment) -> DerivedImage | None:
        """The environment's image, where the engine has it."""
        return await self._engine.find(environment.image)

    async def make(
        self, environment: Environment, *, report: Report, max_unsized_bytes: int | None = None
    ) -> DerivedImage:
        """Have the environment's image, and name it: fetched where the registry has it, else made. Leaves nothing
        without a name behind, whatever happens.

        Where layers go away meanwhile (somebody prunes the engine), it is planned once more.

        Args:
            max_unsized_bytes: As for `WheelStore.fetch`.

        Raises:
            PrebuiltError: See `prebuilt_spawner.build.interface` for which come from where.
        """
        named = await self._fetched(environment, report)
        if named is not None:
            report(BuildEvent(phase=Phase.READY, message="The image is ready"))
            _log.info("Fetched %s (%s)", environment.image, named.image_id)
            return named
        packages = ", ".join(environment.lock.packages) or "no packages"
        built = ", ".join(environment.lock.from_source)
        _log.info("Building %s: %s%s", environment.image, packages, built and f" (from source: {built})")
        if built:
            report(BuildEvent(phase=Phase.BUILDING, message=f"With what is built from source: {built}"))
        fetch = partial(self._wheel_store.fetch, report=report, max_unsized_bytes=max_unsized_bytes)
        try:
            named = await self._made(environment, fetch, stacking=True, report=report)
        except LayersGone as error:
            _log.warning("Building %s once more: %s (%s)", environment.image, error.message, error.detail)
            named = await self._made(await self._on_present_base(environment), fetch, stacking=False, report=report)
        report(BuildEvent(phase=Phase.READY, message="The image is ready"))
        _log.info("Built %s (%s)", environment.image, named.image_id)
        if self._pushes is not None:
            await self._pushes.owe(environment)
        return named

    @asynccontextmanager
    async def planned(self, environment: Environment) -> AsyncIterator[ImagePlan]:
        """The plan of an image on nothing but the base, the same on every hub; its base is held while entered. Wheels
        that are gone from the hub's disk are fetched again.

        Raises:
            PrebuiltError: As `make` does.
        """
        fetch = partial(self._wheel_store.fetch, report=ignore)
        async with self._engine.hold(environment.base.image_id):
            what = await self._fetched_contents(environment, fetch, None, report=ignore)
            yield await asyncio.to_thread(
                what.plan,
                labels=_labels(environment),
                environment=self._variables(environment.base),
                digest=environment.digest,
            )

    def _variables(self, base: BaseImage) -> dict[str, str]:
        """Environment variables of the images, besides and in place of the base's."""
        return session_environment(base) if self._immutable else {}

    async def close(self) -> None:
        """Fetch and push nothing more."""
        if self._pushes is not None:
            await self._pushes.close()
        if self._shared is not None:
            await self._shared.close()

    async def _fetched(self, environment: Environment, report: Report) -> DerivedImage | None:
        """The environment's image from the registry, named; None where it has to be made."""
        if self._shared is None:
            return None
        try:
            async with self._shared.fetched(
                environment.digest,
                base=environment.base,
                labels=_labels(environment),
                environment=self._variables(environment.base),
                report=report,
            ) as image:
                return None if image is None else await self._engine.tag(image, environment.image)
        except LayersGone as error:
            _log.warning("Building %s after all: %s (%s)", environment.image, error.message, error.detail)
            return None

    async def _made(
        self,
        environment: Environment,
        fetch: Callable[..., Awaitable[None]],
        *,
        stacking: bool,
        report: Report,
    ) -> DerivedImage:
        wheels = environment.lock.wheels
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._engine.hold(environment.base.image_id))
            ahead = await self._ahead(environment, held) if stacking else None
            what = await self._fetched_contents(environment, fetch, ahead, report=report)
            below = await self._lower(what, held) if stacking else None
            if below is None and ahead is not None:
                report(BuildEvent(phase=Phase.SAVING, message="Saving to the engine"))
                below = await ahead.below(what)
            plan = await asyncio.to_thread(
                what.plan,
                labels=_labels(environment),
                environment=self._variables(environment.base),
                digest=environment.digest,
                below=below,
                popularity=await self._ledger.popularity([wheel.sha256 for wheel in wheels]),
            )
            image = await self._engine.assemble(plan, report=report)
            try:
                named = await self._engine.tag(image, environment.image)
            except BaseException:
                await asyncio.shield(self._engine.discard(image))
                raise
        if named.image_id != image.image_id:
            await self._engine.discard(image)
            return named
        stack = _stack_of(image, plan, below[0].layers if below is not None else ())
        if stack is not None:
            await self._ledger.record_image(
                stack,
                layout_version=LAYOUT_VERSION,
                base_digest=environment.base.digest,
                lock=environment.lock,
                size_bytes=image.size_bytes,
            )
        return named

    async def _fetched_contents(
        self, environment: Environment, fetch: Callable[..., Awaitable[None]], ahead: Ahead | None, *, report: Report
    ) -> Contents:
        """What the environment consists of, with its wheels on the hub's disk: fetched, or built from source."""
        wheels = environment.lock.wheels
        based = environment.base, environment.probe
        await fetch([wheel for wheel in wheels if wheel.source is None], for_base=based)
        if self._sources is not None:
            await self._sources.have(environment.lock, environment.base, environment.probe, report=report)
        made = ignore if ahead is None else ahead.add
        fragments = await self._wheel_store.fragments(
            wheels, environment.base, environment.probe, report=report, made=made
        )
        return await asyncio.to_thread(self._contents, environment, fragments)

    async def _on_present_base(self, environment: Environment) -> Environment:
        """The same on its base as it is there now, pulled again where it had gone."""
        base = await self._engine.resolve_base(environment.base.reference)
        if base.digest != environment.base.digest:
            raise LayersGone(f"The base image {base.reference} was replaced just now. Start again.")
        return replace(environment, base=base)

    async def _ahead(self, environment: Environment, held: AsyncExitStack) -> Ahead | None:
        """For layers that can be handed over before all are there; None where it is small, or where there is an image
        on which some of it can be stacked."""
        if not is_worth_it(environment):
            return None
        known = await self._ledger.stacks(
            base_digest=environment.base.digest,
            layout_version=LAYOUT_VERSION,
            wheels=[wheel.sha256 for wheel in environment.lock.wheels],
            limit=1,
        )
        if known:
            return None
        carrier = await held.enter_async_context(self._engine.carry(environment.base, environment.digest))
        return Ahead(environment, carrier)

    async def _lower(self, what: Contents, held: AsyncExitStack) -> tuple[Stack, str] | None:
        """What exists of what the environment can be stacked on, held, and the ID of its image."""
        base = what.base
        known = await self._ledger.stacks(
            base_digest=base.digest,
            layout_version=LAYOUT_VERSION,
            wheels=[fragment.wheel_sha256 for fragment in what.fragments],
        )
        for stack in what.stacks(known)[:_MAX_LOOKS]:
            image = await self._engine.find(environment_reference(self._repository, stack.digest, self._registry))
            wanted = (*base.diff_ids, *(layer.diff_id for layer in stack.layers))
            if image is not None and image.diff_ids[: len(wanted)] == wanted:
                with suppress(LayersGone):
                    await held.enter_async_context(self._engine.hold(image.image_id))
                    return stack, image.image_id
        return None

    def _contents(self, environment: Environment, fragments: tuple[Fragment, ...]) -> Contents:
        protected = self._closures.get(environment.base.digest)
        if protected is None:
            protected = protected_closure(self._protected, environment.probe)
            self._closures[environment.base.digest] = protected
        return contents(
            base=environment.base,
            probe=environment.probe,
            lock=environment.lock,
            fragments=fragments,
            own_files=own_files(
                base=environment.base,
                lock=environment.lock,
                probe=environment.probe,
                immutable=self._immutable,
                version=__version__,
            ),
            protected=protected,
        )


def _stack_of(image: DerivedImage, plan: ImagePlan, below: tuple[StackedLayer, ...]) -> Stack | None:
    """The layers that others can be stacked on: all but the notes, which are the last. None where the engine made other
    layers of the plan."""
    diff_ids = image.diff_ids[len(plan.lower.diff_ids) :]
    if len(diff_ids) != len(plan.layers):
        return None
    layers = (
        StackedLayer(diff_id=diff_id, wheels=layer.wheels) for diff_id, layer in zip(diff_ids, plan.layers, strict=True)
    )
    return Stack(digest=plan.digest, layers=(*below, *layers)[:-1])


def _labels(environment: Environment) -> dict[str, str]:
    packages = environment.lock.packages
    return {
        VERSION_LABEL: __version__,
        DIGEST_LABEL: environment.digest,
        BASE_DIGEST_LABEL: environment.base.digest,
        PACKAGES_LABEL: json.dumps(packages),
        "org.opencontainers.image.title": "prebuilt-spawner environment",
        "org.opencontainers.image.description": f"{len(packages)} Python packages on a Jupyter base image",
        "org.opencontainers.image.version": environment.digest[:12],
        "org.opencontainers.image.base.name": environment.base.reference,
    }
