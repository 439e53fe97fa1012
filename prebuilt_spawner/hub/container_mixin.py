"""How our containers are made, found and removed, on top of DockerSpawner's way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from docker.errors import NotFound
from jupyterhub.utils import fmt_ip_url, maybe_future
from tornado import web

from ..build.provider import Environment
from ..environment.reference import parse_reference
from ..environment.root import starts_as_root
from ..errors import EngineFailure, ServerEnded, SurroundingsError
from ..image.names import DIGEST_LABEL
from . import container, early_end, home
from .choice import Choice
from .config import PrebuiltConfig
from .hub_wide import HubWideSettings
from .removal import remove_container

if TYPE_CHECKING:
    from dockerspawner import DockerSpawner as _DockerSpawner
else:
    _DockerSpawner = object  # whichever class this is mixed into


class ContainerMixin(PrebuiltConfig, _DockerSpawner):  # type: ignore[misc]  # dockerspawner is not typed
    """The part of the spawner that deals with containers: only ours are touched, and nobody's data is removed."""

    # DockerSpawner's.
    object_id: str
    extra_create_kwargs: Any
    extra_host_config: Any

    # Folders that the log has spoken of already.
    _partial_homes: ClassVar[set[tuple[str, ...]]] = set()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hub_wide = HubWideSettings(self)

    async def pull_image(self, image: str) -> None:
        """Images of ours are made here and never pulled: whoever took the name in a registry could put anything in."""
        if not self._hub_wide.is_ours(image):
            await super().pull_image(image)
            return
        try:
            found = await self.docker("inspect_image", image)
        except NotFound as error:
            raise EngineFailure(
                "The image of your environment has just been removed. Start your server again.", detail=image
            ) from error
        if container.labels_of(found).get(DIGEST_LABEL) != parse_reference(image).tag:
            raise EngineFailure(
                "The image of your environment was not made by this hub. Tell your administrator.", detail=image
            )

    async def get_object(self) -> Any:
        """The container, unless it is somebody else's that has its name: that one is neither polled nor stopped."""
        recorded = self.object_id
        found = await super().get_object()
        # One without our label that this hub recorded is from before this spawner was installed.
        if found is None or self._is_ours(found) or found[self.object_id_key] == recorded:
            return found
        self.object_id = ""
        return None

    def get_env(self) -> dict[str, Any]:
        """DockerSpawner's and the administrator's, on top of ours."""
        env: dict[str, Any] = super().get_env()
        return {**container.IMMUTABLE_ENVIRONMENT, **env} if self._hub_wide.immutable else env

    async def remove_object(self) -> None:
        """Remove the container if it is ours, and none of its volumes: DockerSpawner removes the nameless ones."""
        found = await super().get_object()
        if found is None:
            return
        if not self._is_ours(found):
            self.log.warning("Not removing the container %s, which this spawner did not make", self.object_name)
        elif not await remove_container(self.docker, self.object_id):
            self.log.warning("The engine is still removing the container %s", self.object_name)

    async def run_post_stop_hook(self) -> None:
        """The administrator's hook, then, with `remove`, the container's removal if the server ended by itself."""
        try:
            await maybe_future(super().run_post_stop_hook())
        finally:
            if self.remove and await self.get_object() is not None:
                await self.remove_object()

    async def rename(self, old_name: str, new_name: str) -> None:
        """Refused: the home's volume and the container belong to the server's name."""
        raise web.HTTPError(400, "Servers cannot be renamed here, because their files belong to the name.")

    def _is_ours(self, found: Mapping[str, Any]) -> bool:
        return container.labels_of(found).get(container.CONTAINER_LABEL) == f"{self.user.name}/{self.name}"

    async def _clear_the_way(self, environment: Environment, choice: Choice, *, host_config: Mapping[str, Any]) -> None:
        """Remove a container of ours that was made from another image, for another profile or with other scratch space,
        and one that would run a user's packages as root, from before the settings were changed.

        Raises:
            SurroundingsError: The container that has our name is not ours.
        """
        found = await super().get_object()
        if found is None:
            return
        if not self._is_ours(found):
            self.object_id = ""
            raise SurroundingsError(
                f"A container with the name {self.object_name} is there already, and it was not made for your server. "
                "Tell your administrator."
            )
        same_profile = container.labels_of(found).get(container.PROFILE_LABEL) == choice.slug
        scratch = home.tmpfs_by_target(self._render_templates(host_config.get("tmpfs") or {}))
        same_scratch = (found["HostConfig"].get("Tmpfs") or {}) == scratch
        as_root = choice.adds_packages and starts_as_root(found["Config"].get("User"), environment.probe)
        as_before = found["Config"]["Image"] == environment.image and same_profile and same_scratch
        if as_before and not self.remove and not as_root:
            return
        self.log.info("Removing the container %s, to make it anew", self.object_name)
        if found["State"]["Running"]:
            await self.stop_object()
        if not await remove_container(self.docker, self.object_id):
            raise EngineFailure("Your former container is still being removed. Try again in a few minutes.")
        self.object_id = ""

    async def _start_watched(self, choice: Choice) -> Any:
        """Start the container as DockerSpawner does, and see whether its server answers.

        Raises:
            ServerEnded: The container ended first.
        """
        try:
            address = await super().start()
        except RuntimeError:
            # The engine knows no port of a container that has ended.
            if self.object_id and await self._has_ended():
                raise await self._server_ended(choice) from None
            raise
        if self.internal_ssl or not isinstance(address, tuple):
            return address  # JupyterHub alone knows how to ask it
        host, port = address
        if await early_end.ended(f"http://{fmt_ip_url(host)}:{port}{self.server.base_url}api", self._has_ended):
            raise await self._server_ended(choice)
        return address

    async def _has_ended(self) -> bool:
        found = await self.get_object()
        return found is None or not found["State"]["Running"]

    async def _server_ended(self, choice: Choice) -> ServerEnded:
        found = await self.get_object()
        printed: bytes = b"" if found is None else await self.docker("logs", self.object_id, tail=early_end.LOG_LINES)
        return early_end.server_ended(
            log=printed.decode(errors="replace"),
            status=None if found is None else found["State"]["ExitCode"],
            immutable=self._hub_wide.immutable,
            own_packages=choice.adds_packages,
        )

    def container_user(self, create_kwargs: Mapping[str, Any]) -> str:
        """As whom a container starts that is created with these `extra_create_kwargs`; "" for the image's user."""
        user = create_kwargs.get("user")
        if user is None:
            # SystemUserSpawner's, which gives it to DockerSpawner as it starts.
            return "0" if getattr(self, "run_as_root", False) else ""
        return str(self._render_templates(user))

    async def _create_kwargs(self, choice: Choice) -> dict[str, Any]:
        given = dict(await maybe_future(called(self.extra_create_kwargs, self)))
        given["labels"] = container.container_labels(given.get("labels"), profile=choice.slug)
        return given

    async def _host_config(self, environment: Environment) -> dict[str, Any]:
        given = await maybe_future(called(self.extra_host_config, self))
        mounted = container.mounted_by_others(
            self._render_templates(given), volume_binds=self.volume_binds, mount_binds=self.mount_binds
        )
        folder = environment.probe.home
        volumes = home.home_volumes(
            name=home.home_volume(self.user.name, self.name),
            home=folder,
            declared=environment.base.config.get("Volumes") or {},
            mounted=mounted,
        )
        if volumes:
            self._warn_of_partial_home(folder, home.parts_of(mounted, folder))
        return container.host_config(
            given, mounted=mounted, immutable=self._hub_wide.immutable, scratch=self.scratch, volumes=volumes
        )

    def _warn_of_partial_home(self, folder: str, parts: tuple[str, ...]) -> None:
        if parts and (folder, *parts) not in self._partial_homes:
            self._partial_homes.add((folder, *parts))
            self.log.warning(
                "The configured mounts hold only a part of the home %s: %s. The rest of it is kept in a volume of its "
                "own for each server, %s for this one; back that up too, or mount the whole home.",
                folder,
                ", ".join(parts),
                home.home_volume(self.user.name, self.name),
            )

    @contextmanager
    def _container_settings(self, create_kwargs: dict[str, Any], host_config: dict[str, Any]) -> Iterator[None]:
        """DockerSpawner reads these two while it creates the container."""
        before = self.extra_create_kwargs, self.extra_host_config
        self.extra_create_kwargs, self.extra_host_config = create_kwargs, host_config
        try:
            yield
        finally:
            self.extra_create_kwargs, self.extra_host_config = before


def called(value: Any, spawner: ContainerMixin) -> Any:
    """The value of a setting that may be a callable of the spawner."""
    return value(spawner) if callable(value) else value
