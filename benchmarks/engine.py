"""The engine under measurement: what it is, what the run makes in it, and how all of that goes away again."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, NotFound

RUN_LABEL = "prebuilt_spawner.bench"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a command in a container ended."""

    status: int
    output: str


class BenchEngine:
    """An engine, and the word of one run: images are named and containers labelled by it.

    Args:
        url: Where it listens; "" for what the environment says.
        base: The base image's reference.
        run: Lowercase letters and digits.
    """

    def __init__(self, url: str, base: str, run: str) -> None:
        self.client_kwargs = {"base_url": url} if url else {}
        arguments = {**docker.utils.kwargs_from_env(), **self.client_kwargs}
        self.client = docker.APIClient(**arguments, version="auto", timeout=900)
        self.base = base
        self.run = run
        self.repository = f"prebuilt-spawner-bench/{run}"
        found = self.client.inspect_image(base)
        self.bases: list[tuple[str, ...]] = [tuple(found["RootFS"]["Layers"])]
        """The layers of images that are there beforehand, and cost nobody anything."""
        self.base_config = found["Config"]
        info = self.client.info()
        status = [list(pair) for pair in info.get("DriverStatus") or ()]
        containerd = ["driver-type", "io.containerd.snapshotter.v1"] in status
        self.store = "containerd" if containerd else str(info["Driver"])
        self.version = str(info["ServerVersion"])
        self._caches_before: frozenset[str] | None = None

    def name(self, tag: str) -> str:
        """A name for an image of the run."""
        return f"{self.repository}:{tag}"

    def run_in(
        self,
        image: str,
        command: list[str],
        *,
        files: Mapping[str, bytes] | None = None,
        user: str | None = None,
        network: str = "none",
        entrypoint: list[str] | None = None,
    ) -> Ran:
        """Run a command in a new container, which is removed."""
        with self.container(
            image, command, files=files, user=user, network=network, entrypoint=entrypoint or []
        ) as container:
            self.client.start(container)
            status = self.client.wait(container)["StatusCode"]
            return Ran(status=status, output=self.client.logs(container).decode(errors="replace"))

    @contextlib.contextmanager
    def container(
        self,
        image: str,
        command: list[str],
        *,
        files: Mapping[str, bytes] | None = None,
        user: str | None = None,
        network: str = "none",
        entrypoint: list[str] | None = None,
    ) -> Iterator[str]:
        """A container that is not started; it goes at the end. The entry point [] is none, None is the image's."""
        made = self.client.create_container(
            image,
            command=command if entrypoint is None or entrypoint else command[1:],
            entrypoint=entrypoint if entrypoint is None or entrypoint else command[:1],
            user=user,
            labels={RUN_LABEL: self.run},
            healthcheck={"test": ["NONE"]},
            host_config=self.client.create_host_config(network_mode=network),
        )["Id"]
        try:
            for path, content in (files or {}).items():
                self.client.put_archive(made, "/", packed({path.lstrip("/"): content}))
            yield made
        finally:
            with contextlib.suppress(NotFound):
                self.client.remove_container(made, force=True, v=True)

    def commit(self, image: str, tag: str, *, files: Mapping[str, bytes]) -> str:
        """The image with these files (their folders exist), configured as it was; returns its name."""
        theirs = self.client.inspect_image(image)["Config"]
        with self.container(image, ["true"], files=files) as container:
            config = {key: theirs.get(key) for key in ("Entrypoint", "Cmd", "User", "Healthcheck")}
            self.client.commit(container, repository=self.repository, tag=tag, conf=config)
        return self.name(tag)

    # What images are

    def layers(self, image: str) -> tuple[str, ...]:
        """The uncompressed layers' digests, lowest first."""
        return tuple(self.client.inspect_image(image)["RootFS"]["Layers"])

    def disk_bytes(self, images: Iterable[str]) -> int:
        """What these images take beside their base: each layer once for each stack that it lies on."""
        sizes: dict[tuple[str, ...], int] = {}
        for image in images:
            layers = self.layers(image)
            # The history has the newest first, and entries without a layer.
            kept = [entry["Size"] for entry in reversed(self.client.history(image)) if entry["Size"]]
            own = layers[self._shared(layers) :]
            for depth, size in enumerate(reversed(kept[-len(own) :] if own else [])):
                sizes[layers[: len(layers) - depth]] = size
        return sum(sizes.values())

    def _shared(self, layers: tuple[str, ...]) -> int:
        return max(len(base) for base in self.bases if layers[: len(base)] == base)

    def remove(self, image: str) -> None:
        """An image of the run, with what only it has."""
        with contextlib.suppress(NotFound):
            self.client.remove_image(image, force=True)

    # Leaving

    def clean_up(self) -> None:
        """Remove every container, image, volume and build cache of the run, and nothing else."""
        for container in self.client.containers(all=True, filters={"label": f"{RUN_LABEL}={self.run}"}):
            with contextlib.suppress(APIError):
                self.client.remove_container(container["Id"], force=True, v=True)
        # More than once: an image that others stand on goes after them.
        for _ in range(3):
            for image in self._images():
                with contextlib.suppress(APIError):
                    self.client.remove_image(image, force=True)
        if self._caches_before is not None:
            for cache in self._build_caches() - self._caches_before:
                with contextlib.suppress(APIError):
                    self.client.prune_builds(filters={"id": [cache]}, all=True)
        self.client.close()

    def _images(self) -> list[str]:
        named = [tag for image in self.client.images() for tag in image["RepoTags"] or ()]
        found = [tag for tag in named if tag.startswith(f"{self.repository}:") or tag.startswith(f"{self.repository}-")]
        labelled = self.client.images(all=True, filters={"label": f"{RUN_LABEL}={self.run}"})
        return [*found, *(image["Id"] for image in labelled)]

    def use_buildkit(self) -> None:
        """To be said before its first use: what it keeps from then on is looked through at the end."""
        if self._caches_before is None:
            self._caches_before = self._build_caches()

    def _build_caches(self) -> frozenset[str]:
        """What BuildKit keeps that may be this run's: steps and mounts name their command, which has the run's word;
        contexts name nobody."""
        found = self.client._result(self.client._get(self.client._url("/system/df")), True)
        caches = {each["ID"]: str(each.get("Description")) for each in found.get("BuildCache") or ()}
        return frozenset(key for key, text in caches.items() if self.run in text or "build-context" in text)


def packed(files: Mapping[str, bytes | Path], *, mode: int = 0o755) -> bytes:
    """A tar of these files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path, content in files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
