"""Containers to look into: nothing of their image runs but what a test asks for."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

from .trees import Entry, Tree

TEST_LABEL = "prebuilt_spawner.test"
VOLUME = "/exact"
SCRIPT = Path(__file__).with_name("tree_script.py")


@dataclass(frozen=True)
class Output:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def remove_all_of(client: docker.APIClient, run: str) -> None:
    """Remove every container of this run, then every image."""
    for container in client.containers(all=True, filters={"label": f"{TEST_LABEL}={run}"}):
        client.remove_container(container["Id"], force=True, v=True)
    for image in client.images(f"prebuilt-spawner-test/{run}"):
        for name in image["RepoTags"] or ():
            if name.startswith(f"prebuilt-spawner-test/{run}:"):
                client.remove_image(name)


class Machine:
    """A running container of an image, without a network. What is put into it lies in a volume, not among its files."""

    def __init__(self, client: docker.APIClient, image: str, *, run: str) -> None:
        self._client = client
        self.image = image
        self._container = client.create_container(
            image,
            entrypoint=["sleep"],
            command=["infinity"],
            labels={TEST_LABEL: run},
            volumes=[VOLUME],
            healthcheck={"test": ["NONE"]},
            # With an init, so that it stops at once and leaves no zombies.
            host_config=client.create_host_config(network_mode="none", init=True),
        )
        client.start(self._container)
        self.put({"tree_script.py": SCRIPT})

    def put(self, files: Mapping[str, bytes | Path]) -> None:
        """Write files into the volume, by path in it."""
        with tempfile.TemporaryFile() as archive:
            with tarfile.open(fileobj=archive, mode="w") as tar:
                for name, content in files.items():
                    if isinstance(content, Path):
                        tar.add(content, name)
                    else:
                        entry = tarfile.TarInfo(name)
                        entry.size, entry.mode = len(content), 0o644
                        tar.addfile(entry, io.BytesIO(content))
            archive.seek(0)
            self._client.put_archive(self._container, VOLUME, archive)

    def run(
        self, *command: str, user: str = "", environment: Mapping[str, str] | None = None, check: bool = True
    ) -> Output:
        """Run a command, by default as the image's user; what it imports leaves no bytecode behind."""
        made = self._client.exec_create(
            self._container,
            list(command),
            user=user,
            environment={"PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
        )
        out, err = self._client.exec_start(made, demux=True)
        status = self._client.exec_inspect(made)["ExitCode"]
        output = Output(status, (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace"))
        assert status == 0 or not check, f"{' '.join(command)[:200]}: {output.out[-2000:]}\n{output.err[-2000:]}"
        return output

    def python(self, program: str, *arguments: str) -> str:
        """What a program prints that the image's Python runs as the image's user."""
        return self.run("python3", "-c", program, *arguments).out.strip()

    def tree(self, known: Tree | None = None) -> Tree:
        """All files of the image. Content is looked at only where it may differ from what is known."""
        arguments = []
        if known is not None:
            self.put({"known.json": "".join(f"{line}\n" for line in known.lines()).encode()})
            arguments = [f"{VOLUME}/known.json"]
        return Tree(Entry(*json.loads(line)) for line in self._script("tree", *arguments).lines)

    def hashes(self, paths: Iterable[str]) -> dict[str, str]:
        """The content of files, as `tree` has it."""
        return self._told("hash", sorted(paths))

    def code(self, paths: Iterable[str]) -> dict[str, list[str]]:
        """What code bytecode files hold, in whichever of its forms; see tree_script.py."""
        return self._told("code", sorted(paths))

    def texts(self, paths: Iterable[str]) -> dict[str, str]:
        """The content of text files."""
        return self._told("text", sorted(paths))

    def _told(self, what: str, paths: Sequence[str]) -> dict[str, Any]:
        if not paths:
            return {}
        self.put({"paths.json": json.dumps(paths).encode()})
        return dict(map(json.loads, self._script(what, f"{VOLUME}/paths.json").lines))

    def _script(self, *arguments: str) -> Output:
        return self.run("python3", "-IS", f"{VOLUME}/tree_script.py", *arguments, user="root")


class Server:
    """A container that runs what the image says, without a network."""

    _TOKEN = "token-of-the-tests"

    def __init__(self, client: docker.APIClient, image: str, *, run: str) -> None:
        self._client = client
        self._container = client.create_container(
            image,
            labels={TEST_LABEL: run},
            environment={"JUPYTER_TOKEN": self._TOKEN},
            host_config=client.create_host_config(network_mode="none"),
        )
        client.start(self._container)

    def remove(self) -> None:
        self._client.remove_container(self._container, force=True, v=True)

    def becomes_healthy(self) -> bool:
        """Whether the image's health check succeeds within a minute."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            state = self._client.inspect_container(self._container)["State"]
            assert state["Running"], self._client.logs(self._container).decode(errors="replace")
            if state["Health"]["Status"] == "healthy":
                return True
            time.sleep(0.1)
        return False

    def page(self, path: str) -> str:
        """What the server answers."""
        address = f"http://127.0.0.1:8888{path}?token={self._TOKEN}"
        program = f"import urllib.request; print(urllib.request.urlopen({address!r}).read().decode())"
        made = self._client.exec_create(self._container, ["python3", "-c", program])
        return self._client.exec_start(made).decode()
