"""Mistakes in the configuration show when the hub starts, not at somebody's first server.

JupyterHub reads a spawner's settings when it makes the first spawner, which may be hours after its start. So they are
checked as soon as it has read its configuration.
"""

from __future__ import annotations

from typing import Any

from jupyterhub.app import JupyterHub
from traitlets import TraitError
from traitlets.config import Config
from traitlets.config.loader import DeferredConfig, LazyConfigValue

from .config import PrebuiltConfig
from .spawner import PrebuiltSpawner


def check_at_hub_start() -> None:
    """Have the hub that is being started, if one is, check its settings of `PrebuiltSpawner`. It does not start with
    one that is refused, and its log says which."""
    if JupyterHub.initialized():
        # JupyterHub tells nobody that it has read its configuration. What it then makes first, and can be observed on
        # every version, is the way to its database. Observing twice with one handler is observing once.
        JupyterHub.instance().observe(_check_hub, names="session_factory")


def _check_hub(change: Any) -> None:
    hub = change.owner
    try:
        check_settings(hub.config)
    except TraitError as error:
        hub.log.critical("PrebuiltSpawner is not configured right: %s", error)
        hub.exit(1)


def check_settings(config: Config) -> None:
    """Check the settings of `PrebuiltSpawner` in a configuration.

    Raises:
        TraitError: One is refused.
    """
    names = set(PrebuiltConfig.class_trait_names(config=True))
    values: dict[str, Any] = {}
    for section in PrebuiltSpawner.section_names():  # parents first, as traitlets applies them
        settings = config.get(section, {})
        values |= {name: settings[name] for name in names & set(settings)}
    # What is only appended to a default, or is a string of the command line, has no value of its own yet.
    open_ones = (LazyConfigValue, DeferredConfig)
    PrebuiltConfig(**{name: value for name, value in values.items() if not isinstance(value, open_ones)})
