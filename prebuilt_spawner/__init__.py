"""A JupyterHub spawner that turns the packages each user asks for into a shared, immutable image."""

from ._version import __version__

__all__ = ["__version__"]
