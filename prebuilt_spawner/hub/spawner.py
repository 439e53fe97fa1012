"""The spawner class that administrators name."""

from __future__ import annotations

from dockerspawner import DockerSpawner

from .mixin import PrebuiltMixin


class PrebuiltSpawner(PrebuiltMixin, DockerSpawner):  # type: ignore[misc]  # dockerspawner is not typed
    """DockerSpawner with an image for each list of packages that users ask for."""
