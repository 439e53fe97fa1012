"""A registry on loopback: Debian's docker-registry, which `dev/engine26` unpacked."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import requests

from ..loopback import LOOPBACK
from ..ports import free_ports
from .private_engine import PROGRAMS
from .small_bases import digest

START_SECONDS = 20

CREDENTIALS = ("hub", "secret-of-the-registry")
_HASHED = "$2b$04$XnJpesiNsALchBOnJdz/Eudn5mkL2MWe1rG4xs/rGy0ptp8AOvA7a"
"""The password as htpasswd has it (bcrypt)."""


class Registry:
    """One that runs.

    Attributes:
        host: With its port, as it stands in an image's name.
        credentials: (user, password) that it wants.
    """

    def __init__(self, host: str, credentials: tuple[str, str] | None = None) -> None:
        self.host = host
        self.credentials = credentials

    def log_in(self, config: Path) -> None:
        """Write docker's configuration file as `docker login` does."""
        assert self.credentials is not None
        login = base64.b64encode(":".join(self.credentials).encode()).decode()
        config.write_text(json.dumps({"auths": {self.host: {"auth": login}}}))

    def push(self, repository: str, tag: str, contents: Iterable[tuple[str, bytes]]) -> str:
        """Put blobs and manifests there; the index gets the tag.

        Returns:
            The image's reference.
        """
        url = f"http://{self.host}/v2/{repository}"
        for media_type, content in contents:
            if media_type.endswith(("manifest.v1+json", "index.v1+json")):
                name = tag if media_type.endswith("index.v1+json") else digest(content)
                answer = requests.put(
                    f"{url}/manifests/{name}",
                    data=content,
                    headers={"Content-Type": media_type},
                    auth=self.credentials,
                    timeout=60,
                )
            else:
                place = requests.post(f"{url}/blobs/uploads/", auth=self.credentials, timeout=60).headers["Location"]
                answer = requests.put(
                    place, params={"digest": digest(content)}, data=content, auth=self.credentials, timeout=60
                )
            assert answer.status_code == 201, answer.text
        return f"{self.host}/{repository}:{tag}"


@contextlib.contextmanager
def registry(folder: Path, *, host: str = "", locked: bool = False, read_only: bool = False) -> Iterator[Registry]:
    """Started with its data in a folder; ended when left.

    Args:
        host: Where; by default on a free port.
        locked: Whether it wants `CREDENTIALS`.
        read_only: Whether it refuses everything that writes.
    """
    host = host or f"{LOOPBACK}:{free_ports(1)[0]}"
    maintenance = {"maintenance": {"readonly": {"enabled": True}}} if read_only else {}
    login = {"auth": {"htpasswd": {"realm": "registry", "path": str(folder / "htpasswd")}}} if locked else {}
    if locked:
        (folder / "htpasswd").write_text(f"{CREDENTIALS[0]}:{_HASHED}\n")
    configuration = folder / "registry.yml"
    configuration.write_text(
        json.dumps(  # which is YAML too
            {
                "version": "0.1",
                "log": {"accesslog": {"disabled": True}, "level": "error"},
                "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}, **maintenance},
                **login,
                "http": {"addr": host},
            }
        )
    )
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAMS / "usr/bin/docker-registry", "serve", configuration],
            stdout=log,
            stderr=log,
            env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not _answers(host):
            assert process.poll() is None, (folder / "registry.log").read_text()
            assert time.monotonic() < end, "the registry does not answer"
            time.sleep(0.05)
        yield Registry(host, CREDENTIALS if locked else None)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _answers(host: str) -> bool:
    try:
        return requests.get(f"http://{host}/v2/", timeout=5).status_code in (200, 401)
    except requests.ConnectionError:
        return False
