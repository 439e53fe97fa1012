"""The spawner's part of a start: what happens when, around DockerSpawner's own."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from docker.errors import NotFound
from jupyterhub.app import JupyterHub
from jupyterhub.utils import maybe_future
from sqlalchemy.orm import object_session
from tornado import web
from traitlets import default, observe

from ..adapters.docker_client import translated
from ..build.provider import Environment
from ..environment.options import parse_user_options, without_refresh
from ..environment.policy import Policy, check_request
from ..environment.profiles import Profile, choose_profile, read_profiles
from ..environment.quoting import quoted
from ..environment.reference import is_in_repository
from ..errors import BuildTimeout, EngineFailure, MalformedRequest, PolicyRefusal, RequestError, SurroundingsError
from . import container, form, home
from .choice import Choice, make_choice
from .config import PrebuiltConfig
from .deadline import DeadlinePassed, within
from .errors import errors_for_users
from .hub_wide import HubWideSettings
from .overrides import TraitOverrides
from .progress import STARTING_PERCENT, ProgressBuffer
from .removal import remove_container
from .request_body import is_unread_body, options_of_body
from .runtime import Manager, build_manager, shared_manager

if TYPE_CHECKING:
    from dockerspawner import DockerSpawner as _DockerSpawner
else:
    _DockerSpawner = object  # whichever class this is mixed into


class PrebuiltMixin(PrebuiltConfig, _DockerSpawner):  # type: ignore[misc]  # dockerspawner is not typed
    """Goes before DockerSpawner, or a class made from it, and gives its containers prepared images.

    In the order of a start:

    1. `apply_group_overrides`: what an earlier start left is undone.
    2. `apply_user_options`: options, profile and policy; the base image and the profile's overrides are set.
    3. `run_pre_spawn_hook`: the administrator's hook, then the environment, in a time of its own.
    4. `start`: the way is cleared for the container, which DockerSpawner then creates or starts again.
    """

    # DockerSpawner's.
    object_id: str
    extra_create_kwargs: Any
    extra_host_config: Any

    _choice: Choice | None = None
    _environment: Environment | None = None
    # The image of the `start` that is under way.
    _starting: str | None = None
    # What JupyterHub had stored before it stored this request's options, in a tuple; () where that is not known.
    _stored_before: tuple[Any, ...] = ()
    # The request whose link was refused.
    _refused_link: Any = None

    # Folders that the log has spoken of already.
    _partial_homes: ClassVar[set[tuple[str, ...]]] = set()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._progress = ProgressBuffer()
        self._overrides = TraitOverrides(self)
        super().__init__(*args, **kwargs)
        self._hub_wide = HubWideSettings(self)

    # -- options -----------------------------------------------------------------------------------------------------

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        return _apply_user_options

    @default("options_form")
    def _default_options_form(self) -> Any:
        return form.options_form

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return form.options_from_form

    def options_from_query(self, query_data: Mapping[str, Any]) -> dict[str, Any]:
        """Refuses: a link must start nothing, because any page can make a browser follow one. JupyterHub shows the
        form then, which the link fills in."""
        self._refused_link = self.handler
        raise form.LinkFillsForm()

    @observe("handler")
    def _keep_stored_options(self, change: Any) -> None:
        # JupyterHub sets the handler just before it stores a request's options, and validates them only afterwards.
        if change.new is not None and self.orm_spawner is not None:
            self._stored_before = (copy.deepcopy(self.orm_spawner.user_options),)

    async def apply_group_overrides(self) -> None:
        """The first step of a start: traits are again what the configuration says."""
        self._overrides.undo()
        self._choice = self._environment = None
        if self._progress.closed:
            self._progress = ProgressBuffer()
        self._progress.attach()
        await super().apply_group_overrides()

    async def choose(self) -> None:
        """Read the options, check them against the policy of the user whose server it is, set what they stand for.

        Raises:
            tornado.web.HTTPError: They are refused; what JupyterHub had stored before is stored again.
        """
        with self._for_users("reading the options"), self._putting_back():
            if self.handler is not None and self.handler is self._refused_link:
                # Where the administrator has switched the form off, JupyterHub starts the stored options now.
                raise PolicyRefusal("A link cannot start a server with options. Start it from your home page.")
            given = self._given_options()
            options = parse_user_options(given)
            stored = without_refresh(given)
            if stored != self.user_options:
                # An act, not a setting: it must not be stored, or every start would repeat it.
                self._store_options(stored)
            profile = choose_profile(await self.profiles(), options.profile)
            self._overrides.undo()
            self._overrides.apply(profile.spawner_override if profile else {})
            check_request(await self.policy(profile), options.packages, user_name=self.user.name)
            self._overrides.apply({"image": await self._base(options.image, profile)})
            self._choice = make_choice(stored, options, profile)

    def _given_options(self) -> Any:
        if self._choice is None and self._stored_before and is_unread_body(self.handler):
            return options_of_body(self.user_options, self._stored_before[0])
        return self.user_options

    async def profiles(self) -> tuple[Profile, ...]:
        """What `profile_list` offers this user; the default is among them."""
        return read_profiles(await maybe_future(_called(self.profile_list, self)))

    async def policy(self, profile: Profile | None) -> Policy:
        """What this user may add to the profile, or ask for where there is none."""
        allow = profile.allow_extra_packages if profile else None
        if allow is None:
            allow = bool(await maybe_future(_called(self.allow_custom_packages, self)))
        return Policy(
            allow_custom_packages=allow,
            allowed_packages=tuple(self.allowed_packages),
            denied_packages=tuple(self.denied_packages),
            max_packages=self.max_packages,
        )

    async def _base(self, key: str | None, profile: Profile | None) -> str:
        """The base image: the one that the user chose, else the profile's, else the configured one."""
        if key is None:
            return (profile.image if profile else None) or str(self.image)
        try:
            image = str(await super().check_allowed(key))
        except web.HTTPError as error:
            raise MalformedRequest(f"{quoted(key)} is no image to choose. Choose another.", about="image") from error
        if is_in_repository(image, self._hub_wide.repository):
            # With `allowed_images = "*"`, users could otherwise start each other's environments by name.
            raise MalformedRequest(f"{quoted(key)} is a prepared environment. Choose a base image.", about="image")
        return image

    @contextmanager
    def _putting_back(self) -> Iterator[None]:
        """A refused request leaves what JupyterHub had stored before it."""
        try:
            yield
        except RequestError:
            if self._stored_before:
                self._store_options(self._stored_before[0])
            raise

    def _store_options(self, options: Mapping[str, Any] | None) -> None:
        self.user_options = dict(options or {})
        if self.orm_spawner is not None:
            self.orm_spawner.user_options = None if options is None else dict(options)
            session = object_session(self.orm_spawner)
            if session is not None:
                session.commit()

    # -- the environment ---------------------------------------------------------------------------------------------

    async def run_pre_spawn_hook(self) -> None:
        """The administrator's hook, then our environment. JupyterHub's `start_timeout` begins only after this."""
        try:
            await self._choose_if_changed()
            await maybe_future(super().run_pre_spawn_hook())
            choice = await self._choose_if_changed()
            with self._for_users("preparing the environment"), self._putting_back():
                self._environment = await self._prepare(choice)
        finally:
            self._progress.close(complete=self._environment is not None)

    async def _choose_if_changed(self) -> Choice:
        # Not chosen yet where the administrator has an `apply_user_options` of their own; changed by a hook.
        if self._choice is None or self._choice.stored != self.user_options:
            await self.choose()
        return self._choice  # type: ignore[return-value]  # chosen just now

    async def _prepare(self, choice: Choice) -> Environment:
        self._hub_wide.check_unchanged()
        request = await asyncio.to_thread(
            choice.request, user=self.user.name, base=self.image, is_admin=bool(self.user.admin)
        )
        manager = await self.manager()
        try:
            # The trait's 0 is no limit.
            return await within(self.build_timeout or None, manager.ensure(request, report=self._progress.report))
        except DeadlinePassed:
            raise BuildTimeout(
                f"The environment was not ready within {self.build_timeout} seconds. "
                "Try again in a few minutes, or ask for fewer packages."
            ) from None

    async def manager(self) -> Manager:
        """The hub's build manager, made where there is none yet."""
        return await shared_manager(self._new_manager)

    async def _new_manager(self) -> Manager:
        """Makes the hub's build manager; called once for each hub."""
        limit = JupyterHub.instance().concurrent_spawn_limit if JupyterHub.initialized() else 0
        return await build_manager(self._hub_wide.for_runtime(concurrent_spawn_limit=limit))

    async def progress(self) -> AsyncIterator[Mapping[str, Any]]:
        """What happens to the environment, from the first event for each viewer, then the container's start."""
        buffer = self._progress
        async for event in buffer.read():
            yield event
        if not buffer.complete:
            return  # JupyterHub says how it failed
        async for event in super().progress():
            yield {**event, "progress": max(STARTING_PERCENT, event.get("progress", 0))}

    # -- the container -----------------------------------------------------------------------------------------------

    async def start(self) -> Any:
        """Start the container from the prepared image, and from no other."""
        choice, environment = self._choice, self._environment
        self._environment = None
        with self._for_users("starting the container"):
            if choice is None or environment is None or choice.stored != self.user_options:
                raise SurroundingsError(
                    "Your server was not started, because no environment was prepared for it. Tell your administrator.",
                    detail="run_pre_spawn_hook was not run for these options: PrebuiltSpawner must be JupyterHub's own "
                    "spawner class, and not wrapped in another.",
                )
            self._starting = environment.image
            try:
                with translated():
                    await self._clear_the_way(environment.image, choice.slug)
                    self._overrides.apply({"image": environment.image})
                    create_kwargs = await self._create_kwargs(choice)
                    host_config = await self._host_config(environment)
                    with self._container_settings(create_kwargs, host_config):
                        return await super().start()
            finally:
                self._starting = None

    async def check_allowed(self, image: str) -> str:
        """DockerSpawner applies `user_options["image"]` again as it starts: it was chosen before, as the base."""
        return self._starting or await super().check_allowed(image)

    async def pull_image(self, image: str) -> None:
        """Images of ours are made here and never pulled: whoever took the name in a registry could put anything in."""
        if not is_in_repository(image, self._hub_wide.repository):
            await super().pull_image(image)
            return
        try:
            await self.docker("inspect_image", image)
        except NotFound as error:
            raise EngineFailure(
                "The image of your environment has just been removed. Start your server again.", detail=image
            ) from error

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

    async def _clear_the_way(self, image: str, slug: str) -> None:
        """Remove a container of ours that was made from another image or for another profile.

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
        same_profile = container.labels_of(found).get(container.PROFILE_LABEL) == slug
        if found["Config"]["Image"] == image and same_profile and not self.remove:
            return
        self.log.info("Removing the container %s, to make it anew", self.object_name)
        if found["State"]["Running"]:
            await self.stop_object()
        if not await remove_container(self.docker, self.object_id):
            raise EngineFailure("Your former container is still being removed. Try again in a few minutes.")
        self.object_id = ""

    async def _create_kwargs(self, choice: Choice) -> dict[str, Any]:
        given = dict(await maybe_future(_called(self.extra_create_kwargs, self)))
        given["labels"] = container.container_labels(given.get("labels"), profile=choice.slug)
        return given

    async def _host_config(self, environment: Environment) -> dict[str, Any]:
        given = await maybe_future(_called(self.extra_host_config, self))
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
        return container.host_config(given, mounted=mounted, immutable=self._hub_wide.immutable, volumes=volumes)

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

    def _for_users(self, doing: str) -> AbstractContextManager[None]:
        # The application's settings, which are not those that users have.
        settings = {} if self.handler is None else self.handler.settings
        return errors_for_users(self.log, f"{doing} of {self._log_name}", settings=settings)


async def _apply_user_options(spawner: PrebuiltMixin, user_options: Mapping[str, Any]) -> None:
    await spawner.choose()


def _called(value: Any, spawner: PrebuiltMixin) -> Any:
    return value(spawner) if callable(value) else value
