"""Mistakes in the configuration show when the hub starts, not at somebody's first server.

JupyterHub reads a spawner's settings when it makes the first spawner, which may be hours after its start. So they are
checked as soon as it has read its configuration.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from jupyterhub.app import JupyterHub
from traitlets import TraitError
from traitlets.config import Config
from traitlets.config.loader import DeferredConfig, LazyConfigValue

from ..errors import PrebuiltError
from .config import PrebuiltConfig
from .hub_wide import spawner_of_nobody
from .interpreter import favour_event_loop
from .mixin import PrebuiltMixin
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
    _log_as(hub)
    try:
        check_settings(hub.config)
    except TraitError as error:
        hub.log.critical("PrebuiltSpawner is not configured right: %s", error)
        hub.exit(1)
    if isinstance(hub.spawner_class, type) and issubclass(hub.spawner_class, PrebuiltMixin):
        task = asyncio.get_running_loop().create_task(_make_manager(hub))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


def _log_as(hub: Any) -> None:
    """Have what the core says in the hub's log, in its form and at its level, as JupyterHub does for tornado."""
    logger = logging.getLogger(__package__.partition(".")[0])
    logger.parent = hub.log
    logger.setLevel(hub.log.level)


_tasks: set[asyncio.Task[None]] = set()


async def _make_manager(hub: Any) -> None:
    """Make the build manager now, which puts in order what a hub left behind that was killed."""
    try:
        await spawner_of_nobody(hub.spawner_class, hub.config).manager()
    except PrebuiltError as error:
        # It is tried again at the first start of a server, and whoever starts it is told.
        hub.log.error("Environments cannot be prepared at the moment: %s %s", error.message, error.detail)
    except Exception:
        hub.log.exception("Environments cannot be prepared at the moment")
    favour_event_loop()


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
