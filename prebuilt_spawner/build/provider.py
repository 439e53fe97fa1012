"""From a request to an image that can be started."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass

from .._version import __version__
from ..environment.base import BaseImage, BaseProbe
from ..environment.closure import protected_closure
from ..environment.digest import environment_digest
from ..environment.lock import Lock
from ..environment.reference import environment_reference
from ..image.files import own_files
from ..image.fragment import Fragment
from ..image.layer import LAYOUT_VERSION, ImagePlan
from ..image.names import BASE_DIGEST_LABEL, DIGEST_LABEL, PACKAGES_LABEL, VERSION_LABEL
from ..image.plan import plan_image
from .events import BuildEvent, Phase, Report
from .interface import DerivedImage, Engine, WheelStore

_log = logging.getLogger(__name__)


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
    """

    user: str
    requirements: tuple[str, ...]
    base: str
    profile: ProfileRequest | None = None
    refresh: bool = False
    may_refresh_profile: bool = False


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment that is decided: what it is called, and everything that making its image needs.

    Attributes:
        digest: The environment digest, 64 hex digits.
        image: The reference to start, `repository:digest`.
        base: What it stands on.
        probe: What the base's interpreter says.
        lock: What it adds.
    """

    digest: str
    image: str
    base: BaseImage
    probe: BaseProbe
    lock: Lock


class Provider:
    """Names environments, and makes the image of one.

    Args:
        repository: Where derived images are named.
        immutable: Whether sessions may not change their environment; the images say so.
        protected: Names of the base's server packages. No wheel may touch or hide files of theirs or of what they need.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        wheel_store: WheelStore,
        repository: str,
        immutable: bool = True,
        protected: frozenset[str] = frozenset(),
    ) -> None:
        self._engine = engine
        self._wheel_store = wheel_store
        self._repository = repository
        self._immutable = immutable
        self._protected = protected

    def name(self, *, base: BaseImage, probe: BaseProbe, lock: Lock) -> Environment:
        """Which environment this lock makes of this base; its image need not exist."""
        digest = environment_digest(
            lock,
            base_digest=base.digest,
            platform=base.platform,
            layout_version=LAYOUT_VERSION,
            immutable=self._immutable,
        )
        image = environment_reference(self._repository, digest)
        return Environment(digest=digest, image=image, base=base, probe=probe, lock=lock)

    async def present(self, environment: Environment) -> DerivedImage | None:
        """The environment's image, where the engine has it."""
        return await self._engine.find(environment.image)

    async def make(self, environment: Environment, *, report: Report) -> DerivedImage:
        """Make the environment's image and name it. Leaves nothing without a name behind, whatever happens.

        Raises:
            PrebuiltError: See `prebuilt_spawner.build.interface` for which come from where.
        """
        _log.info("Building %s: %s", environment.image, ", ".join(environment.lock.packages) or "no packages")
        async with self._engine.hold(environment.base.image_id):
            await self._wheel_store.fetch(environment.lock.wheels, report=report)
            fragments = await self._wheel_store.fragments(
                environment.lock.wheels, environment.base, environment.probe, report=report
            )
            plan = await asyncio.to_thread(self._plan, environment, fragments)
            image = await self._engine.assemble(plan, report=report)
            try:
                named = await self._engine.tag(image, environment.image)
            except BaseException:
                await asyncio.shield(self._engine.discard(image))
                raise
        if named.image_id != image.image_id:
            await self._engine.discard(image)
        report(BuildEvent(phase=Phase.READY, message="The image is ready"))
        _log.info("Built %s (%s)", environment.image, named.image_id)
        return named

    def _plan(self, environment: Environment, fragments: tuple[Fragment, ...]) -> ImagePlan:
        return plan_image(
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
            labels=_labels(environment),
            environment={"PYTHONNOUSERSITE": "1"} if self._immutable else {},
            digest=environment.digest,
            protected=protected_closure(self._protected, environment.probe),
        )


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
