"""What the form offers a user: profiles and lists of lately, each with what starting it would do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ..build.preview import Preview, Readiness, in_words
from ..build.provider import EnvironmentRequest
from ..environment.options import parse_user_options
from ..environment.policy import Policy, check_request
from ..environment.profiles import Profile, choose_profile
from ..environment.quoting import quoted
from ..errors import MalformedRequest, PrebuiltError, RequestError
from .choice import Choice, make_choice
from .deadline import DeadlinePassed, within
from .entries import Entries, entries_from_options

if TYPE_CHECKING:
    from .mixin import PrebuiltMixin

SHOWN_PACKAGES = 6
"""How many packages of a profile the form names before it says how many more there are."""

_SHOWN_RECENT_PACKAGES = 4
_RECENT = 5

_PREVIEW_SECONDS = 3
"""How long the form waits to learn what there was lately, and then what is ready; it is shown without what an engine, a
database or a disk does not answer in that time."""

_UNKNOWN = Preview(readiness=Readiness.UNKNOWN)
_RENEWS = "Newer versions are looked for, and built first if there are any."


@dataclass(frozen=True, kw_only=True)
class ProfileOffer:
    """A profile as the form shows it.

    Attributes:
        packages: Requirements, or what its lock installs; the first few.
        more_packages: How many there are besides.
        base: A name for people; "" where it is the same for all that is offered.
        extras: Whether packages can be added to it.
        preview: What a start of it alone would do.
    """

    profile: Profile
    packages: tuple[str, ...]
    more_packages: int
    base: str
    extras: bool
    preview: Preview


@dataclass(frozen=True, kw_only=True)
class RecentOffer:
    """What the user started lately.

    Attributes:
        entries: What fills in the form.
        title: What is in it, short.
        query: The query of a link that fills in the form.
        preview: What a start of it would do.
    """

    entries: Entries
    title: str
    query: str
    preview: Preview


@dataclass(frozen=True, kw_only=True)
class Offers:
    """Everything that one user can choose, and what the entries at hand would do.

    Attributes:
        images: Keys of `allowed_images`, where there are several.
        default_image: The key of the base that is taken where none is chosen; "" where a profile decides, or none has
            that base.
        any_image: `allowed_images` is "*".
        may_refresh: Whether newer versions can be asked for: of one's own packages, or by administrators.
        outlook: What pressing Start would do with the entries as they are, in a sentence; "" where nobody knows.
    """

    profiles: tuple[ProfileOffer, ...]
    recent: tuple[RecentOffer, ...]
    images: tuple[str, ...]
    default_image: str
    any_image: bool
    may_add_packages: bool
    may_refresh: bool
    outlook: str

    @property
    def fields(self) -> frozenset[str]:
        """The options for which the form has a field that people see."""
        shown = {
            "profile": len(self.profiles) > 1,
            "packages": self.may_add_packages,
            "image": self.any_image or len(self.images) > 1,
            "refresh": self.may_refresh,
        }
        return frozenset(name for name, is_shown in shown.items() if is_shown)

    @property
    def is_choice(self) -> bool:
        """Whether there is anything to choose."""
        return bool(self.fields - {"refresh"})


class Chooser:
    """Reads options as a start would, without starting anything.

    Args:
        policies: By profile slug; "" for none.
        image: The configured base image.
        allowed_images: As DockerSpawner reads it: base images by key, "*", or None for the configured one only.
    """

    def __init__(
        self,
        *,
        user: str,
        is_admin: bool,
        profiles: Sequence[Profile],
        policies: Mapping[str, Policy],
        image: str,
        allowed_images: Mapping[str, str] | str | None,
    ) -> None:
        self._user = user
        self.is_admin = is_admin
        self.profiles = tuple(profiles)
        self.policies = policies
        self._image = image
        self.any_image = allowed_images == "*"
        self.images: Mapping[str, str] = dict(allowed_images) if isinstance(allowed_images, Mapping) else {}

    def choice(self, options: Mapping[str, Any]) -> Choice:
        """What a start with these options would stand for.

        Raises:
            RequestError: It would be refused.
        """
        read = parse_user_options(options)
        profile = choose_profile(self.profiles, read.profile)
        policy = self.policies[profile.slug if profile else ""]
        check_request(policy, read.packages, user_name=self._user)
        if read.image is not None and not self.any_image and read.image not in self.images:
            raise MalformedRequest(f"{quoted(read.image)} is no image that can be chosen here. Choose another.")
        return make_choice(options, read, profile, policy)

    def base(self, choice: Choice) -> str:
        """The base image of a choice."""
        key = choice.options.image
        if key is not None:
            return self.images.get(key, key)
        profile = choice.profile
        override = profile.spawner_override.get("image") if profile else None
        return (profile.image if profile else None) or (override if isinstance(override, str) else "") or self._image

    def request(self, choice: Choice) -> EnvironmentRequest:
        """The question to the build manager. Reads the profile's lock file.

        Raises:
            StorageFailure: The file cannot be read.
        """
        return choice.request(user=self._user, base=self.base(choice), is_admin=self.is_admin)

    @property
    def offered_policies(self) -> list[Policy]:
        """Of the profiles, or of what there is without any."""
        return [self.policies[profile.slug] for profile in self.profiles] or [self.policies[""]]

    def default_image(self) -> str:
        """The key of the configured image; "" where it has none."""
        return next((key for key, reference in self.images.items() if reference == self._image), "")

    def base_name(self, image: str) -> str:
        """What people call a base image: its key in `allowed_images`, else the last part of its reference."""
        for key, reference in self.images.items():
            if reference == image:
                return key
        return image.rpartition("/")[2].partition("@")[0]


async def chooser_for(spawner: PrebuiltMixin) -> Chooser:
    """What this user can choose from."""
    profiles = await spawner.profiles()
    of_all = await spawner.policy(None)
    policies = {"": of_all}
    for profile in profiles:
        # Asked again only where a profile changes settings: there may be hundreds, and callables among the settings.
        allow = of_all.allow_custom_packages if profile.allow_extra_packages is None else profile.allow_extra_packages
        own = replace(of_all, allow_custom_packages=allow)
        policies[profile.slug] = await spawner.policy(profile) if profile.spawner_override else own
    return Chooser(
        user=spawner.user.name,
        is_admin=bool(spawner.user.admin),
        profiles=sorted(profiles, key=lambda profile: not profile.default),
        policies=policies,
        image=spawner.configured_image(),
        allowed_images=spawner._get_allowed_images() or None,
    )


async def offers_for(spawner: PrebuiltMixin, chooser: Chooser, entries: Entries) -> Offers:
    """Everything that the form shows. Nothing is resolved, built or pulled for it."""
    recent = await _recent_choices(spawner, chooser)
    kept = _kept_query(spawner)
    plain = [chooser.choice({"profile": profile.slug}) for profile in chooser.profiles]
    now, refused = _choice_of(chooser, entries)
    previews = await _previews(spawner, chooser, [*plain, *recent, *([now] if now else [])])
    may_add = any(policy.allow_custom_packages for policy in chooser.offered_policies)
    several_bases = len({chooser.base(choice) for choice in plain}) > 1
    return Offers(
        profiles=tuple(
            _profile_offer(
                choice.profile,
                preview,
                base=chooser.base_name(chooser.base(choice)) if several_bases else "",
                extras=chooser.policies[choice.profile.slug].allow_custom_packages,
            )
            for choice, preview in zip(plain, previews, strict=False)
            if choice.profile is not None
        ),
        recent=tuple(
            _recent_offer(chooser, choice, preview, kept)
            for choice, preview in zip(recent, previews[len(plain) :], strict=False)
        ),
        images=tuple(chooser.images),
        default_image="" if plain else chooser.default_image(),
        any_image=chooser.any_image,
        may_add_packages=may_add,
        may_refresh=may_add or (chooser.is_admin and bool(plain)),
        outlook=refused or _outlook(previews[-1], refresh=entries.refresh),
    )


def fitting(chooser: Chooser, entries: Entries, *, keep: bool) -> tuple[Entries, tuple[str, ...]]:
    """The entries without what the form cannot send, and what that was, in words: the page promises what it will do.

    Args:
        keep: Whether packages stay for which another profile would have to be chosen.
    """
    slugs = [profile.slug for profile in chooser.profiles]
    left_out = []
    if entries.profile and entries.profile not in slugs:
        left_out.append(f"the environment {quoted(entries.profile)}")
        entries = replace(entries, profile="")
    takers = [slug for slug, policy in chooser.policies.items() if policy.allow_custom_packages]
    chosen = entries.profile or next(iter(slugs), "")
    if entries.packages.strip() and (not takers or (chosen not in takers and not keep)):
        left_out.append("the packages")
        entries = replace(entries, packages="")
    has_images = chooser.any_image or (entries.image in chooser.images and len(chooser.images) > 1)
    if entries.image and not has_images:
        if chooser.images.get(entries.image) != chooser.base(chooser.choice({"profile": chosen})):
            left_out.append(f"the base image {quoted(entries.image)}")
        entries = replace(entries, image="")
    return entries, tuple(left_out)


def _outlook(preview: Preview, *, refresh: bool) -> str:
    return _RENEWS if refresh and preview.readiness is Readiness.UNBUILT else in_words(preview)


def _choice_of(chooser: Chooser, entries: Entries) -> tuple[Choice | None, str]:
    """What the entries stand for; None, and why, where they would be refused."""
    try:
        return chooser.choice(asdict(entries)), ""
    except RequestError as error:
        return None, f"Cannot work: {error.message}"


async def _recent_choices(spawner: PrebuiltMixin, chooser: Chooser) -> list[Choice]:
    """What the user started lately, without what could not be started now."""
    try:
        found = await within(_PREVIEW_SECONDS, _lately(spawner))
    except (PrebuiltError, DeadlinePassed) as error:
        spawner.log.warning("The form shows nothing of lately: %r %s", error, getattr(error, "detail", ""))
        return []
    choices = []
    for options in found:
        try:
            choices.append(chooser.choice(options))
        except RequestError:
            continue  # a profile that has gone, a package that is not allowed any more
    return choices


async def _lately(spawner: PrebuiltMixin) -> Sequence[Mapping[str, Any]]:
    manager = await spawner.manager()
    return await manager.recent(user=spawner.user.name, since=_created(spawner), limit=_RECENT)


def _created(spawner: PrebuiltMixin) -> datetime | None:
    """When JupyterHub made the user: names are given again, and their lists are nobody else's."""
    created: datetime | None = spawner.user.orm_user.created
    return created.replace(tzinfo=timezone.utc) if created is not None and created.tzinfo is None else created


async def _previews(spawner: PrebuiltMixin, chooser: Chooser, choices: Sequence[Choice]) -> Sequence[Preview]:
    """In the order of the choices; what cannot be looked up, as of something that nobody knows."""
    try:
        return await within(_PREVIEW_SECONDS, _looked_up(spawner, chooser, choices))
    except (PrebuiltError, DeadlinePassed) as error:
        spawner.log.warning("The form does not say what is ready: %r %s", error, getattr(error, "detail", ""))
        return [_UNKNOWN] * len(choices)


async def _looked_up(spawner: PrebuiltMixin, chooser: Chooser, choices: Sequence[Choice]) -> Sequence[Preview]:
    requests = await asyncio.to_thread(lambda: [_request(chooser, choice) for choice in choices])
    manager = await spawner.manager()
    found = iter(await manager.preview([request for request in requests if request is not None]))
    return [_UNKNOWN if request is None else next(found) for request in requests]


def _request(chooser: Chooser, choice: Choice) -> EnvironmentRequest | None:
    try:
        return chooser.request(choice)
    except PrebuiltError:
        return None  # whoever starts it is told why


def _profile_offer(profile: Profile, preview: Preview, *, base: str, extras: bool) -> ProfileOffer:
    packages = profile.requirements or preview.packages or ()
    return ProfileOffer(
        profile=profile,
        packages=packages[:SHOWN_PACKAGES],
        more_packages=max(0, len(packages) - SHOWN_PACKAGES),
        base=base,
        extras=extras,
        preview=preview,
    )


def _kept_query(spawner: PrebuiltMixin) -> dict[str, str]:
    """What JupyterHub itself reads of the page's query: where to go after the start, and a new server's name."""
    query = spawner.handler.request.query_arguments if spawner.handler is not None else {}
    return {name: query[name][-1].decode("utf-8", "replace") for name in ("next", "display_name") if query.get(name)}


def _recent_offer(chooser: Chooser, choice: Choice, preview: Preview, kept: Mapping[str, str]) -> RecentOffer:
    entries = entries_from_options({**choice.stored, "packages": choice.options.packages})
    query = {f"opt-{name}": getattr(entries, name) for name in ("profile", "packages", "image")}
    return RecentOffer(
        entries=entries,
        title=_title(chooser, choice),
        query=urlencode({**{name: value for name, value in query.items() if value}, **kept}),
        preview=preview,
    )


def _title(chooser: Chooser, choice: Choice) -> str:
    """What was chosen, as `Maths with six, attrs and 3 more on R notebook`."""
    packages = choice.options.packages
    listed = ", ".join(packages[:_SHOWN_RECENT_PACKAGES])
    if len(packages) > _SHOWN_RECENT_PACKAGES:
        listed += f" and {len(packages) - _SHOWN_RECENT_PACKAGES} more"
    parts = [choice.profile.display_name if choice.profile else "", listed]
    title = " with ".join(part for part in parts if part) or "No packages of your own"
    return f"{title} on {choice.options.image}" if choice.options.image else title
