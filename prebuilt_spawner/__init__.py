"""A JupyterHub spawner that turns the packages each user asks for into a shared, immutable image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .hub.spawner import PrebuiltSpawner

__all__ = ["PrebuiltSpawner", "__version__"]


def __getattr__(name: str) -> Any:
    # Loaded when asked for: the core is used without JupyterHub and Docker's library too.
    if name == "PrebuiltSpawner":
        from .hub.spawner import PrebuiltSpawner
        from .hub.startup import check_at_hub_start

        # At each look-up: the first may come before there is a hub.
        check_at_hub_start()
        return PrebuiltSpawner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
