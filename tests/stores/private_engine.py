"""Engines that the tests of this folder start for themselves: nobody else's images are in them."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import dockerd
from docker.errors import APIError

PROGRAMS = Path(__file__).parents[2] / ".dev" / "engine26" / "root"
"""Where `dev/engine26` unpacked Docker Engine 26.1 and a registry."""

ENGINES = ("machine", "graphdriver", "containerd")
"""The machine's own version (20.10, say), and 26.1 with each of its stores."""

BUSYBOX = "/busybox"
"""In the bases of these tests; made for this by Debian: one program without libraries."""

STOP_SECONDS = 20


class PrivateEngine:
    """One engine, started.

    Attributes:
        kind: One of `ENGINES`.
        client: For what tests do behind our back.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        path = os.environ["PATH"]
        self._folder = folder
        self._daemon = dockerd.Daemon(
            # Short: a socket's path has 107 characters at most.
            socket=Path("/run") / f"prebuilt-spawner-{secrets.token_hex(4)}.sock",
            state=folder / "state",
            data_root=folder / "data",
            private=True,
            search_path=path if kind == "machine" else f"{PROGRAMS}/usr/sbin:{PROGRAMS}/usr/bin:{path}",
            features={} if kind == "machine" else {"containerd-snapshotter": kind == "containerd"},
        )
        self._process = dockerd.start(self._daemon)
        self.client = docker.APIClient(base_url=self.url, version="auto", timeout=120)
        self._driver = self.client.info()["DriverStatus"]

    @property
    def url(self) -> str:
        return self._daemon.url

    @property
    def has_containerd_store(self) -> bool:
        """The machine's own engine may have one too."""
        return ["driver-type", "io.containerd.snapshotter.v1"] in self._driver

    def kill(self) -> None:
        """End it as a power failure does."""
        self._process.kill()
        self._process.wait()
        containerd = self._daemon.exec_root / "containerd" / "containerd.pid"
        end = time.monotonic() + STOP_SECONDS
        while containerd.exists() and Path("/proc", containerd.read_text().strip()).exists():
            assert time.monotonic() < end, "its containerd goes on"
            time.sleep(0.05)

    def start(self) -> None:
        """Start it again, with the same data."""
        self._process = dockerd.start(self._daemon)

    def remove(self) -> None:
        """Stop it and remove its data."""
        self.client.close()
        dockerd.stop(self._daemon)
        self._process.wait()
        data = self._folder / "data"
        # The engine mounts it on itself; one that was killed and started again leaves it so.
        while f" {data} " in Path("/proc/self/mounts").read_text("utf-8"):
            subprocess.run(["umount", data], check=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def ctr(self, *words: str) -> str:
        """What containerd's own tool prints: a containerd store, seen and changed behind the engine's back."""
        own = self._daemon.exec_root / "containerd" / "containerd.sock"
        socket = own if own.exists() else "/run/containerd/containerd.sock"
        command = [PROGRAMS / "usr/bin/ctr", "--address", socket, "--namespace", self._daemon.namespace, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    # -- images --------------------------------------------------------------------------------------------------------

    def has(self, reference: str) -> bool:
        """Whether an image has this name or ID."""
        try:
            self.client.inspect_image(reference)
        except docker.errors.ImageNotFound:
            return False
        return True

    def ids(self) -> set[str]:
        """Of all images, also of those without a name, and of those that the builder went through."""
        return {image["Id"] for image in self.client.images(all=True)}

    def load(self, archive: Path | Iterator[bytes]) -> None:
        """Load what was saved."""
        if isinstance(archive, Path):
            with archive.open("rb") as file:
                self.load(iter(lambda: file.read(1 << 20), b""))
            return
        for message in self.client.load_image(archive):
            assert "error" not in message, message

    def run(self, image: str, *command: str) -> str:
        """What a command prints in a container of this image."""
        with self.running(image, *command) as container:
            status = self.client.wait(container)["StatusCode"]
            output = self.client.logs(container).decode()
        assert status == 0, output
        return output.strip()

    def python(self, image: str, program: str) -> str:
        """What a Python program prints in a container of this image."""
        return self.run(image, "python3", "-c", program)

    @contextlib.contextmanager
    def running(self, image: str, *command: str) -> Iterator[str]:
        """The ID of a container that runs a command, by default for as long as needed."""
        entrypoint, *arguments = command or (BUSYBOX, "sleep", "600")
        container = self.client.create_container(
            image,
            entrypoint=[entrypoint],
            command=arguments,
            host_config=self.client.create_host_config(network_mode="none"),
            healthcheck={"test": ["NONE"]},
        )["Id"]
        try:
            self.client.start(container)
            yield container
        finally:
            self.client.remove_container(container, force=True)

    def starts(self, image: str) -> bool:
        """Whether a container of this image runs."""
        try:
            return self.run(image, BUSYBOX, "echo", "it runs") == "it runs"
        except APIError:
            return False

    def prune(self, **filters: Any) -> None:
        """`docker image prune`; with `dangling=False` it is `prune --all`."""
        self.client.prune_images(filters)
        if self.has_containerd_store:
            self.collect_garbage()

    def collect_garbage(self) -> None:
        """Have containerd remove now what nothing refers to; by itself it waits a while."""
        name = secrets.token_hex(8)
        self.ctr("leases", "create", "--id", name)
        self.ctr("leases", "delete", "--sync", name)

    def remove_image(self, reference: str, *, force: bool = False) -> None:
        """`docker rmi`."""
        self.client.remove_image(reference, force=force)
        if self.has_containerd_store:
            self.collect_garbage()
