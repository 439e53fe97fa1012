"""The limits of one user, from the settings as they are for one start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jupyterhub.utils import maybe_future

from ..environment.policy import Policy, Rule, read_rules
from ..environment.profiles import Profile
from .overrides import TraitOverrides, merged

if TYPE_CHECKING:
    from .mixin import PrebuiltMixin


async def policy_for(spawner: PrebuiltMixin, profile: Profile | None, overrides: TraitOverrides) -> Policy:
    """What the spawner's user may add to the profile, or ask for where there is none.

    The same whether the profile's overrides are in force already or, as for the form, not.

    Raises:
        ValueError: A callable of the administrator's returned something that is no list of packages.
    """
    override = profile.spawner_override if profile else {}

    async def setting(name: str) -> Any:
        value = overrides.original(name)
        if name in override:
            given = override[name]
            value = merged(value, given(spawner) if callable(given) else given)
        return await maybe_future(value(spawner) if callable(value) else value)

    def container_user() -> str:
        given = overrides.original("extra_create_kwargs")
        if not callable(given):
            given = merged(given, override.get("extra_create_kwargs", {}))
        # What a callable says of a start is asked when there is one.
        return spawner.container_user({} if callable(given) else given)

    async def rules(name: str) -> tuple[Rule, ...]:
        return read_rules(await setting(name), source=name)

    allow = profile.allow_extra_packages if profile else None
    return Policy(
        allow_custom_packages=bool(await setting("allow_custom_packages")) if allow is None else allow,
        allowed_packages=await rules("allowed_packages"),
        denied_packages=await rules("denied_packages"),
        container_user=container_user(),
        max_packages=await setting("max_packages"),
        # Administrators can change the limit anyway, and try out what many will use.
        max_builds_per_hour=0 if spawner.user.admin else await setting("max_builds_per_user_per_hour"),
        max_environment_bytes=await setting("max_environment_bytes"),
    )
