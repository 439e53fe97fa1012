"""The base image that is made here, from the distribution's packages and PyPI, in the manner of docker-stacks."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import apt
import docker
from docker.errors import ImageNotFound

HERE = Path(__file__).resolve().parent

OWN_REPOSITORY = "prebuilt-spawner-base"
LABEL = "prebuilt_spawner.dev"

DEBIAN_PACKAGES = ["ca-certificates", "python3", "python3-venv", "tini"]
NOT_INSTALLED = ["/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*"]

# The docker-stacks contract, as Dockerfile instructions.
CONFIG = [
    "ENV DEBIAN_FRONTEND=noninteractive",
    "ENV LANG=C.UTF-8",
    "ENV SHELL=/bin/bash",
    "ENV NB_USER=jovyan NB_UID=1000 NB_GID=100",
    "ENV HOME=/home/jovyan",
    "ENV JUPYTER_PORT=8888",
    "ENV VIRTUAL_ENV=/opt/venv",
    "ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "USER 1000",
    "WORKDIR /home/jovyan",
    "EXPOSE 8888",
    'ENTRYPOINT ["tini","-g","--","start.sh"]',
    'CMD ["start-notebook.py"]',
    "HEALTHCHECK --interval=3s --timeout=1s --start-period=3s --retries=3"
    " CMD /etc/jupyter/docker_healthcheck.py || exit 1",
    f"LABEL {LABEL}=base",
]


class NoBaseImageError(Exception):
    """No base image can be had; the message says what to do."""


def say(text: str) -> None:
    """Tell the person at the terminal; standard output is only for the reference."""
    print(text, file=sys.stderr, flush=True)


def has(engine: docker.APIClient, reference: str) -> bool:
    try:
        engine.inspect_image(reference)
    except ImageNotFound:
        return False
    return True


def release() -> str:
    """The codename of this machine's Debian or Ubuntu release, such as ``bookworm``."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    codename = system.get("VERSION_CODENAME", "")
    if not codename or not shutil.which("apt-get"):
        raise NoBaseImageError(
            "A base image can only be made on Debian or Ubuntu."
            " Set BASE_IMAGE to a docker-stacks image that the engine has."
        )
    return codename


def own_reference(suite: str, jupyterhub_version: str) -> str:
    """The name of the image that this recipe makes: its tag changes when anything that goes into it does."""
    recipe = hashlib.sha256()
    parts = [*CONFIG, *DEBIAN_PACKAGES, *NOT_INSTALLED, suite, platform.machine(), jupyterhub_version]
    for text in parts:
        recipe.update(text.encode() + b"\0")
    for path in sorted((HERE / "base").iterdir()):
        recipe.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{OWN_REPOSITORY}:{recipe.hexdigest()[:12]}"


def apt_sources(suite: str) -> list[str]:
    """The lines of the distribution's own repositories for this release, updates and security included."""
    lines = [r.line() for r in apt.distribution_repositories() if r.suite.startswith(suite)]
    if not lines:
        raise NoBaseImageError(f"apt has no package lists of {suite}. Run apt-get update and try again.")
    return lines


def make(engine: docker.APIClient, reference: str, suite: str, jupyterhub_version: str) -> None:
    """Make the root file system from packages, and import it with the contract's configuration."""
    mmdebstrap = shutil.which("mmdebstrap")
    if mmdebstrap is None:
        raise NoBaseImageError("mmdebstrap is missing. Install it (apt-get install mmdebstrap) and try again.")
    exclude = [f"--dpkgopt=path-exclude={pattern}" for pattern in NOT_INSTALLED]
    environment = os.environ | {
        "RECIPE": str(HERE / "base"),
        "UV": shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv",
        "JUPYTERHUB_VERSION": jupyterhub_version,
    }
    # Not /tmp, which may be memory.
    with tempfile.TemporaryDirectory(prefix="prebuilt-spawner-base-", dir="/var/tmp") as scratch:
        Path(scratch).chmod(0o755)  # apt's own user works below it
        archive = Path(scratch) / "root.tar"
        command = [
            mmdebstrap,
            "--quiet",
            "--variant=minbase",
            f"--include={','.join(DEBIAN_PACKAGES)}",
            *exclude,
            '--customize-hook="$RECIPE/install.sh" "$1"',
            suite,
            str(archive),
            *apt_sources(suite),
        ]
        made = subprocess.run(
            command, env=environment | {"TMPDIR": scratch}, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if made.returncode != 0:
            tail = "\n".join((made.stdout + made.stderr).splitlines()[-15:])
            raise NoBaseImageError(f"mmdebstrap could not make a base image:\n{tail}")
        name, tag = reference.split(":")
        with archive.open("rb") as stream:
            answer = engine.import_image_from_data(stream, repository=name, tag=tag, changes=CONFIG)
        if not has(engine, reference):
            raise NoBaseImageError(f"the engine did not take the base image: {answer[-300:]}")


def debian_base(engine: docker.APIClient) -> str:
    """The reference of the image of this recipe, made where the engine has it not.

    Raises:
        NoBaseImageError: It cannot be made.
    """
    suite = release()
    jupyterhub_version = importlib.metadata.version("jupyterhub")
    reference = own_reference(suite, jupyterhub_version)
    if not has(engine, reference):
        say(f"base image: making {reference}, about a minute")
        make(engine, reference, suite, jupyterhub_version)
    return reference
