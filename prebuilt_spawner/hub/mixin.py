"""The spawner's part of a start: what happens when, around DockerSpawner's own."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, NoReturn

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
from ..environment.root import refuse_root
from ..errors import BuildTimeout, MalformedRequest, PolicyRefusal, PrebuiltError, RequestError, SurroundingsError
from . import form
from .choice import Choice, make_choice
from .container_mixin import ContainerMixin, called
from .deadline import DeadlinePassed, within
from .entries import Attempt, FailedAttempts
from .errors import errors_for_users
from .limits import policy_for
from .overrides import TraitOverrides
from .progress import STARTING_PERCENT, ProgressBuffer
from .request_body import ObjectOnly, is_unread_body, options_of_body
from .runtime import Manager, build_manager, shared_manager


class PrebuiltMixin(ContainerMixin):
    """Goes before DockerSpawner, or a class made from it, and gives its containers prepared images.

    In the order of a start:

    1. `apply_group_overrides`: what an earlier start left is undone.
    2. `apply_user_options`: options, profile and policy; the base image and the profile's overrides are set.
    3. `run_pre_spawn_hook`: the administrator's hook, then the environment, in a time of its own.
    4. `start`: the way is cleared for the container, which DockerSpawner then creates or starts again.
    """

    _choice: Choice | None = None
    _environment: Environment | None = None
    # The image of the `start` that is under way.
    _starting: str | None = None
    # What JupyterHub had stored before it stored this request's options, in a tuple; () where that is not known.
    _stored_before: tuple[Any, ...] = ()
    # The options of the start that is under way or was last, as they were given; None where they were not read.
    _given: Any = None
    # The request whose link was refused.
    _refused_link: Any = None

    _failed_attempts: ClassVar[FailedAttempts] = FailedAttempts()

    user_options = ObjectOnly()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._progress = ProgressBuffer()
        self._overrides = TraitOverrides(self)
        super().__init__(*args, **kwargs)

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
            stored = self.orm_spawner.user_options
            self._stored_before = (copy.deepcopy(stored) if isinstance(stored, Mapping) else None,)

    def refuse_options(self, options: Any) -> NoReturn:
        """Refuse what is no object at all."""
        with self._for_users("reading the options"), self._putting_back():
            parse_user_options(options)
        raise ValueError("these options are an object")

    async def apply_group_overrides(self) -> None:
        """The first step of a start: traits are again what the configuration says."""
        self._overrides.undo()
        self._choice = self._environment = self._given = None
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
            if self.answers_link():
                # Where the administrator has switched the form off, JupyterHub starts the stored options now.
                raise PolicyRefusal("A link cannot start a server with options. Start it from your home page.")
            self._given = given = self._given_options()
            options = parse_user_options(given)
            stored = without_refresh(given)
            if stored != self.user_options:
                # An act, not a setting: it must not be stored, or every start would repeat it.
                self._store_options(stored)
            profile = choose_profile(await self.profiles(), options.profile)
            self._overrides.undo()
            self._overrides.apply(profile.spawner_override if profile else {})
            policy = await self.policy(profile)
            check_request(policy, options.packages, user_name=self.user.name)
            self._overrides.apply({"image": await self._base(options.image, profile)})
            self._choice = make_choice(stored, options, profile, policy)

    def _given_options(self) -> Any:
        if self._choice is None and self._stored_before and is_unread_body(self.handler):
            return options_of_body(self.user_options, self._stored_before[0])
        return self.user_options

    async def profiles(self) -> tuple[Profile, ...]:
        """What `profile_list` offers this user; the default is among them."""
        return read_profiles(await maybe_future(called(self.profile_list, self)))

    async def policy(self, profile: Profile | None) -> Policy:
        """What this user may add to the profile, or ask for where there is none."""
        return await policy_for(self, profile, self._overrides)

    async def _base(self, key: str | None, profile: Profile | None) -> str:
        """The base image: the one that the user chose, else the profile's, else the configured one."""
        if key is None:
            return (profile.image if profile else None) or str(self.image)
        try:
            image = str(await super().check_allowed(key))
        except web.HTTPError as error:
            raise MalformedRequest(f"{quoted(key)} is no image to choose. Choose another.", about="image") from error
        if self._hub_wide.is_ours(image):
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

    # -- for the form ------------------------------------------------------------------------------------------------

    def configured_image(self) -> str:
        """The base image that applies where nobody chooses another, whatever a start has set."""
        return str(self._overrides.original("image"))

    def stored_options(self) -> Mapping[str, Any]:
        """What the last start that was not refused asked for."""
        stored = self.user_options or (self.orm_spawner.user_options if self.orm_spawner is not None else None)
        return stored if isinstance(stored, Mapping) else {}

    def last_failure(self) -> Attempt | None:
        """The last start, if it failed."""
        return self._failed_attempts.last(self.user, self.name)

    def answers_link(self) -> bool:
        """Whether the request at hand is a link that JupyterHub took for a start."""
        return self.handler is not None and self.handler is self._refused_link

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
        if choice.adds_packages:
            # Not left to `start`: nothing should be built that is not started then.
            user = self.container_user(await self._create_kwargs(choice))
            request = replace(request, policy=replace(choice.policy, container_user=user))
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
                    create_kwargs = await self._create_kwargs(choice)
                    if choice.adds_packages:
                        # What a hook changed, and a callable says now, counts.
                        refuse_root(self.container_user(create_kwargs), environment.probe, variables=self.get_env())
                    host_config = await self._host_config(environment)
                    await self._clear_the_way(environment, choice, host_config=host_config)
                    self._overrides.apply({"image": environment.image})
                    with self._container_settings(create_kwargs, host_config):
                        address = await self._start_watched(choice)
            finally:
                self._starting = None
        self._failed_attempts.forget(self.user, self.name)
        return address

    async def check_allowed(self, image: str) -> str:
        """DockerSpawner applies `user_options["image"]` again as it starts: it was chosen before, as the base."""
        return self._starting or await super().check_allowed(image)

    @contextmanager
    def _for_users(self, doing: str) -> Iterator[None]:
        # The application's settings, which are not those that users have.
        settings = {} if self.handler is None else self.handler.settings
        with errors_for_users(self.log, f"{doing} of {self._log_name}", settings=settings):
            try:
                yield
            except PrebuiltError as error:
                if isinstance(self._given, Mapping):
                    self._failed_attempts.note(self.user, self.name, self._given, error)
                raise


async def _apply_user_options(spawner: PrebuiltMixin, user_options: Mapping[str, Any]) -> None:
    await spawner.choose()
