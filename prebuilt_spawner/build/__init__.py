"""Builds: asyncio over interfaces. No docker, no jupyterhub."""
