"""What one start asks for: options, profile and policy become a request. Reads one file; otherwise pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..build.provider import EnvironmentRequest, ProfileRequest
from ..environment.options import UserOptions
from ..environment.policy import Policy
from ..environment.profiles import Profile
from ..environment.requirements import merge_requirements
from ..errors import StorageFailure


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A start's options after validation and policy.

    Attributes:
        stored: The options as JupyterHub keeps them: what was given, without `refresh`.
        options: The same, read.
        profile: The profile that applies.
        requirements: The profile's and the user's own, canonical.
        policy: What may come of the user's own.
    """

    stored: Mapping[str, Any]
    options: UserOptions
    profile: Profile | None
    requirements: tuple[str, ...]
    policy: Policy

    @property
    def slug(self) -> str:
        """The profile's, "" without one."""
        return self.profile.slug if self.profile else ""

    @property
    def adds_packages(self) -> bool:
        """Whether the user's own are among them."""
        return not set(self.requirements) <= set(self.profile.requirements if self.profile else ())

    def request(self, *, user: str, base: str, is_admin: bool) -> EnvironmentRequest:
        """The question for the build manager. Reads the profile's lock file.

        Raises:
            StorageFailure: The file cannot be read.
        """
        return EnvironmentRequest(
            user=user,
            requirements=self.requirements,
            base=base,
            profile=_profile_request(self.profile) if self.profile else None,
            refresh=self.options.refresh,
            may_refresh_profile=is_admin,
            options=self.stored,
            policy=self.policy,
        )


def make_choice(stored: Mapping[str, Any], options: UserOptions, profile: Profile | None, policy: Policy) -> Choice:
    """Put together what a start asks for.

    Args:
        policy: That of the user whose server it is, which the options have passed.

    Raises:
        MalformedRequest: The user's packages contradict the profile's.
    """
    own = profile.requirements if profile else ()
    # What is canonical by itself is not parsed again: the form makes a choice of each profile.
    requirements = merge_requirements(own, options.packages) if own and options.packages else own or options.packages
    return Choice(
        stored=copy.deepcopy(dict(stored)), options=options, profile=profile, requirements=requirements, policy=policy
    )


def _profile_request(profile: Profile) -> ProfileRequest:
    pylock = ""
    if profile.lock:
        try:
            pylock = Path(profile.lock).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StorageFailure(
                f"The lock of the profile {profile.slug} cannot be read. Tell your administrator.",
                detail=f"{profile.lock}: {error}",
            ) from error
    return ProfileRequest(slug=profile.slug, requirements=profile.requirements, pylock=pylock)
