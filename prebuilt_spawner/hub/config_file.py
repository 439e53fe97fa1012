"""Reading the hub's configuration file as JupyterHub does, for commands that run beside the hub."""

from __future__ import annotations

import sys
from pathlib import Path

from jupyterhub.spawner import Spawner
from jupyterhub.traitlets import EntryPointType
from packaging.utils import canonicalize_name
from packaging.version import Version
from traitlets import TraitError
from traitlets.config import Config, LoggingConfigurable
from traitlets.config.loader import PyFileConfigLoader

from ..build.retention import ProfilePackages
from ..environment.profiles import Profile, read_profiles
from ..errors import SurroundingsError
from .config import PrebuiltConfig
from .hub_wide import HubWideSettings, spawner_of_nobody
from .spawner import PrebuiltSpawner
from .startup import check_settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class HubConfiguration:
    """What a configuration file says about this spawner.

    Args:
        file: Its path. It is run, as JupyterHub runs it.

    Attributes:
        settings: The hub-wide settings.
        profiles: None where a callable makes them for each user.

    Raises:
        SurroundingsError: It cannot be read or run, or has a setting that is refused.
    """

    def __init__(self, file: Path) -> None:
        try:
            config = PyFileConfigLoader(file.name, path=str(file.parent.absolute())).load_config()
            check_settings(config)
            spawner = _spawner(config)
        except (Exception, SystemExit) as error:  # whatever an administrator's program may raise
            raise SurroundingsError(
                f"{file} cannot be used as the hub's configuration. Run this as the hub is run: in its working folder, "
                "with its environment variables.",
                detail=f"{type(error).__name__}: {error}",
            ) from error
        self.settings = HubWideSettings(spawner)
        self.profiles: tuple[Profile, ...] | None = (
            None if callable(spawner.profile_list) else read_profiles(spawner.profile_list)
        )

    def packages_without_locks(self) -> list[ProfilePackages]:
        """What the profiles install whose locks are not in the ledger: those with lock files, and empty ones.

        Raises:
            SurroundingsError: A lock file cannot be read.
        """
        return [
            _in_lock_file(profile) if profile.lock else ProfilePackages(packages=frozenset())
            for profile in self.profiles or ()
            if profile.lock or not profile.requirements
        ]


class _Choice(LoggingConfigurable):
    """`JupyterHub.spawner_class`, without the rest of JupyterHub."""

    spawner_class = EntryPointType(PrebuiltSpawner, klass=Spawner, entry_point_group="jupyterhub.spawners").tag(
        config=True
    )


def _spawner(config: Config) -> PrebuiltConfig:
    spawner: PrebuiltConfig = spawner_of_nobody(_spawner_class(config), config, also={"profile_list"})
    return spawner


def _spawner_class(config: Config) -> type[PrebuiltConfig]:
    """The hub's spawner class: one made from ours may have other defaults, and sections of its own."""
    chosen = config.JupyterHub.get("spawner_class")
    try:
        found = PrebuiltSpawner if chosen is None else _Choice(spawner_class=chosen).spawner_class
    except TraitError as error:
        raise TraitError(f"c.JupyterHub.spawner_class: {error}") from error
    return found if issubclass(found, PrebuiltConfig) else PrebuiltSpawner


def _in_lock_file(profile: Profile) -> ProfilePackages:
    try:
        packages = tomllib.loads(Path(profile.lock).read_text(encoding="utf-8")).get("packages", [])
        pins = frozenset(
            f"{canonicalize_name(package['name'])}=={Version(package['version'])}"
            for package in packages
            if "version" in package
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SurroundingsError(
            f"The lock file of the profile {profile.slug} cannot be read. Check its path and its content.",
            detail=f"{profile.lock}: {type(error).__name__}: {error}",
        ) from error
    return ProfilePackages(packages=pins, whole=False)
