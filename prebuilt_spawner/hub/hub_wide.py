"""The settings that are the whole hub's: the same for every user, profile and start."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Set
from typing import Any

from docker.tls import TLSConfig
from traitlets import HasTraits
from traitlets.config import Config

from ..build.sources import read_limits
from ..environment.profiles import Profile
from ..environment.reference import is_in_repository
from ..errors import SurroundingsError
from .runtime import RuntimeSettings

HUB_WIDE = frozenset(
    {
        "repository",
        "registry",
        # Images differ by it, and belong to everybody.
        "immutable",
        "index_url",
        "extra_index_urls",
        "allow_source_builds",
        "source_build_limits",
        "db_url",
        "cache_dir",
        "max_cache_bytes",
        "min_free_bytes",
        "max_concurrent_builds",
        "max_queued_builds",
        "failure_ttl",
        # DockerSpawner's: it has one client for the whole hub too.
        "client_kwargs",
        "tls_config",
    }
)
"""Names of traits. One build manager serves the whole hub, so nothing that holds for one start may change them."""


def refuse_hub_wide(profiles: Iterable[Profile]) -> None:
    """Refuse profiles that override what is the hub's.

    Raises:
        ValueError: One does; the message names it and the setting.
    """
    for profile in profiles:
        for name in sorted(HUB_WIDE & set(profile.spawner_override)):
            raise ValueError(
                f"spawner_override of profile {profile.slug} sets {name}, which is one setting for the whole hub; "
                f"set c.PrebuiltSpawner.{name} instead"
            )


def spawner_of_nobody(spawner_class: Any, config: Config, *, also: Set[str] = frozenset()) -> Any:
    """A spawner without a user, which has the settings that are the hub's: DockerSpawner's others need a user.

    Args:
        spawner_class: The hub's.
        config: The hub's.
        also: Names of further settings that it is to have.
    """
    sections = {name: config[name] for name in spawner_class.section_names() if name in config}
    names = HUB_WIDE | also
    known = {
        section: {name: settings[name] for name in names & set(settings)} for section, settings in sections.items()
    }
    return spawner_class(config=Config(known))


class HubWideSettings:
    """What one spawner has for `HUB_WIDE` before anything is overridden.

    Taken from the new spawner and not from its configuration, because a class made from ours may have other defaults.
    """

    def __init__(self, spawner: HasTraits) -> None:
        self._spawner = spawner
        # Copies, but not of what is inside: `client_kwargs` may hold objects that are equal to nothing else.
        self._configured: dict[str, Any] = {name: copy.copy(getattr(spawner, name)) for name in HUB_WIDE}

    @property
    def repository(self) -> str:
        """The name of the images."""
        return str(self._configured["repository"])

    @property
    def registry(self) -> str:
        """What is before the name of the images; "" for nothing."""
        return str(self._configured["registry"])

    def is_ours(self, image: str) -> bool:
        """Whether a name lies where the images are named, with the registry or without it.

        Raises:
            MalformedRequest: It is no name of an image.
        """
        return is_in_repository(image, self.repository, self.registry)

    @property
    def immutable(self) -> bool:
        """Whether containers have a read-only root filesystem."""
        return bool(self._configured["immutable"])

    def check_unchanged(self) -> None:
        """Refuse to start a server for which somebody changed them: it would not get what the change promises.

        Raises:
            SurroundingsError: The detail names the settings.
        """
        changed = [name for name in sorted(HUB_WIDE) if getattr(self._spawner, name) != self._configured[name]]
        if changed:
            raise SurroundingsError(
                "Your server was not started, because its settings are not right. Tell your administrator.",
                detail=f"A profile, group_overrides or a hook changed {', '.join(changed)}: "
                "each is one setting for the whole hub, and cannot be changed for one start.",
            )

    def for_runtime(self, *, concurrent_spawn_limit: int = 0) -> RuntimeSettings:
        """What the hub's build manager is made from.

        Args:
            concurrent_spawn_limit: JupyterHub's; 0 is none.
        """
        configured = self._configured
        tls = {"tls": TLSConfig(**configured["tls_config"])} if configured["tls_config"] else {}
        return RuntimeSettings(
            repository=self.repository,
            registry=self.registry,
            immutable=self.immutable,
            index_url=configured["index_url"],
            extra_index_urls=tuple(configured["extra_index_urls"]),
            allow_source_builds=configured["allow_source_builds"],
            source_build_limits=read_limits(configured["source_build_limits"]),
            db_url=configured["db_url"],
            cache_dir=configured["cache_dir"],
            max_concurrent_builds=configured["max_concurrent_builds"],
            max_queued_builds=configured["max_queued_builds"],
            failure_ttl=configured["failure_ttl"],
            max_cache_bytes=configured["max_cache_bytes"],
            min_free_bytes=configured["min_free_bytes"],
            concurrent_spawn_limit=concurrent_spawn_limit,
            client_kwargs={**tls, **configured["client_kwargs"]},
        )
