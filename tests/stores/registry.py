"""A registry on loopback: Debian's docker-registry, which `dev/engine26` unpacked."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import requests

from ..loopback import LOOPBACK
from .private_engine import PROGRAMS
from .small_bases import digest

START_SECONDS = 20


class Registry:
    """One that runs.

    Attributes:
        host: With its port, as it stands in an image's name.
    """

    def __init__(self, host: str) -> None:
        self.host = host

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
                    f"{url}/manifests/{name}", data=content, headers={"Content-Type": media_type}, timeout=60
                )
            else:
                place = requests.post(f"{url}/blobs/uploads/", timeout=60).headers["Location"]
                answer = requests.put(place, params={"digest": digest(content)}, data=content, timeout=60)
            assert answer.status_code == 201, answer.text
        return f"{self.host}/{repository}:{tag}"


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """Started on a free port, with its data in a folder; ended when left."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        host = f"{LOOPBACK}:{free.getsockname()[1]}"
    configuration = folder / "registry.yml"
    configuration.write_text(
        json.dumps(  # which is YAML too
            {
                "version": "0.1",
                "log": {"accesslog": {"disabled": True}, "level": "error"},
                "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
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
        yield Registry(host)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _answers(host: str) -> bool:
    try:
        return requests.get(f"http://{host}/v2/", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False
