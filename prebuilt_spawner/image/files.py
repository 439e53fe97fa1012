"""The files of our own in an image: what it was made from, how to make it without us, how to ask for a package."""

from __future__ import annotations

import shlex

from ..environment.base import BaseImage, BaseProbe
from ..environment.lock import Lock, to_pylock
from .names import SHARE_FOLDER
from .paths import in_image
from .session import session_files

_DOCKERFILE = """\
# Makes this environment without prebuilt-spawner:
#
#     docker build --build-arg BASE=<base image> <folder that holds this file and pylock.toml>
#
# Written by prebuilt-spawner {version}. The base image that it made this environment on has, by its content, the digest
# {base_digest}.
{sources}ARG BASE
FROM ${{BASE}}
USER root
COPY pylock.toml {share}/pylock.toml
{install}{variables}USER {user}
"""

_SOURCES = """\
# These are built from their source, with the newest versions of what their builds need, which come over the network;
# those that prebuilt-spawner took are in pylock.toml: {built}
"""

_PIP = "pip>=26.1"
"""The first that installs from a lock (PEP 751) with `-r`."""


def own_files(*, base: BaseImage, lock: Lock, probe: BaseProbe, immutable: bool, version: str) -> dict[str, bytes]:
    """Our files by path, absolute without the leading slash.

    Args:
        base: What the image stands on.
        lock: What it installs.
        probe: What is in the base.
        immutable: Whether to bring advice for those who would install into the image, and a way to try packages.
        version: Of this package.
    """
    share = in_image(SHARE_FOLDER)
    files = {
        f"{share}/pylock.toml": to_pylock(lock).encode(),
        f"{share}/Dockerfile": dockerfile(
            base=base, lock=lock, probe=probe, immutable=immutable, version=version
        ).encode(),
    }
    return files | (session_files(base, probe, installed=lock.pins) if immutable else {})


def dockerfile(*, base: BaseImage, lock: Lock, probe: BaseProbe, immutable: bool, version: str) -> str:
    """A Dockerfile that, beside `pylock.toml`, makes the same environment with `docker build` alone.

    It installs with a pip of its own, because the base's may be too old to know locks, and ends with the base's user.
    """
    install = " \\\n    && ".join(_install_commands(probe))
    built = ", ".join(lock.from_source)
    return _DOCKERFILE.format(
        version=version,
        base_digest=base.digest,
        share=SHARE_FOLDER,
        sources=_SOURCES.format(built=built) if built else "",
        install=f"RUN {install}\n" if lock.wheels else "",
        variables="ENV PYTHONNOUSERSITE=1\n" if immutable else "",
        # As the base's configuration says it, name or number. An image that says nothing runs as root.
        user=base.config.get("User") or "root",
    )


def _install_commands(probe: BaseProbe) -> list[str]:
    python = shlex.quote(probe.interpreter)
    lock = f"{SHARE_FOLDER}/pylock.toml"
    if "pip" not in probe.distributions and "uv" in probe.distributions:
        return [f"uv pip install --python {python} --break-system-packages --no-cache --no-deps -r {lock}"]
    folder = "/tmp/prebuilt-pip"  # noqa: S108 - in an image that is being built
    # Options that a base's old pip does not know are given to the new one only.
    return [
        f"{python} -m pip install --no-cache-dir --target {folder} {shlex.quote(_PIP)}",
        f"{python} {folder}/pip install --no-cache-dir --no-deps --break-system-packages --root-user-action=ignore "
        f"-r {lock}",
        f"rm -r {folder}",
    ]
