"""Resolving with uv: which wheels to add to a base, so that everything on it can live together."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import tomli_w
import uv as uv_package
from packaging.version import Version

from ..build.failure import TELL, Failure, Kind, disk_failure
from ..build.interface import ResolveRequest
from ..environment.base import BaseProbe
from ..environment.lock import Lock, LockedWheel, parse_pylock
from ..environment.requirements import requirement_name
from ..errors import (
    BaseImageUnavailable,
    BuildTimeout,
    MalformedRequest,
    PrebuiltError,
    SurroundingsError,
)
from .cache_folder import make_folder
from .network import NetworkSettings
from .uv_input import UvInput, metadata_wheel, uv_input
from .uv_messages import Question, explain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

log = logging.getLogger(__name__)

PROTECTED = ("jupyterhub", "jupyter_server", "jupyterlab", "notebook")
"""What a single-user server is made of."""

MANYLINUX_MINORS = (17, 28, *range(31, 41))
"""The minor versions of glibc 2 that uv has a `--python-platform` for, on each machine of `MACHINES`."""
MACHINES = ("x86_64", "aarch64")

_PIP_COMPILE = (
    *("pip", "compile", "--format", "pylock.toml", "--only-binary", ":all:"),
    # The first index that has a name is the only one for it, or a public package could take a private one's place.
    *("--index-strategy", "first-index"),
    *("--no-python-downloads", "--no-sources", "--no-header", "--no-progress", "--color", "never"),
    *("--constraints", "constraints.txt", "--config-file", "uv.toml", "--output-file", "pylock.toml"),
)


def python_platform(probe: BaseProbe) -> str:
    """The base's platform as uv's `--python-platform` has it, with the newest glibc that uv knows at most.

    Raises:
        BaseImageUnavailable: uv has none for it.
    """
    if probe.machine not in MACHINES or probe.glibc is None or probe.glibc[0] != 2:
        raise BaseImageUnavailable(
            f"Packages cannot be added to this image: its platform ({probe.machine}"
            f"{'' if probe.glibc else ', without glibc'}) is not supported. "
            "Choose another image."
        )
    minors = [minor for minor in MANYLINUX_MINORS if minor <= probe.glibc[1]]
    if not minors:
        raise BaseImageUnavailable(
            f"Packages cannot be added to this image: its C library is too old (glibc 2.{probe.glibc[1]}; wheels need "
            f"2.{MANYLINUX_MINORS[0]}). Choose another image."
        )
    return f"{probe.machine}-manylinux_2_{minors[-1]}"


class UvResolver:
    """Resolves with `uv pip compile`: wheels only, so nobody's code runs.

    Args:
        network: Indexes, proxies, certificates and credentials.
        cache_dir: uv's cache and the metadata of bases are kept below it.
        protected: Packages that stay as the base has them.
        uv: The uv program; None for the one of the `uv` package (FileNotFoundError where that has none).
        timeout_seconds: How long one resolution may take.
        request_timeout_seconds: How long the index may be silent.
        retries: How often uv asks the index again after a failure.
        seen: Gives the normalised names of packages that were installed before: one of them may be what a misspelt
            name meant. A `SurroundingsError` counts as none.
    """

    def __init__(
        self,
        network: NetworkSettings,
        cache_dir: Path,
        *,
        protected: Sequence[str] = PROTECTED,
        uv: str | None = None,
        timeout_seconds: float = 300,
        request_timeout_seconds: int = 30,
        retries: int = 3,
        seen: Callable[[], Awaitable[Collection[str]]] | None = None,
    ) -> None:
        self._network = network
        self._cache_dir = cache_dir.absolute()
        self._cache = self._cache_dir / "uv"
        self._bases = self._cache_dir / "base-metadata"
        self._protected = tuple(protected)
        self._uv = uv or uv_package.find_uv_bin()
        self._timeout_seconds = timeout_seconds
        self._request_timeout_seconds = request_timeout_seconds
        self._retries = retries
        self._seen = seen

    async def resolve(self, request: ResolveRequest) -> Lock:
        """See `prebuilt_spawner.build.interface.Resolver`.

        Raises:
            BuildTimeout: It took longer than it may.
            BaseImageUnavailable: No wheels exist for the base's platform.
            StorageFailure: The cache cannot be written.
        """
        if not request.requirements:
            return Lock()
        platform = python_platform(request.probe)
        question = await asyncio.to_thread(uv_input, request, self._protected)
        try:
            wheels = await asyncio.to_thread(self._offer, question.versions)
            with tempfile.TemporaryDirectory(prefix="prebuilt-spawner-") as name:
                folder = Path(name)
                _write(folder, question)
                places = [wheels, *(made.path.parent for made in request.made)]
                status, errors = await self._run(
                    self._command(request.probe, platform, places), folder, question.requirements
                )
                output = (folder / "pylock.toml").read_text() if status == 0 else ""
        except OSError as error:
            raise disk_failure(error).error(detail=str(error)) from error
        if status != 0:
            raise await self._explained(self._network.redact(errors), request, question)
        built = tuple(made.wheel for made in request.made)
        lock, chosen = await asyncio.to_thread(_lock, output, request.probe, question.versions, built)
        self._require_remote(lock)
        found = (replace(wheel, url=self._network.stored_url(wheel.url)) for wheel in lock.wheels)
        return Lock(wheels=tuple(sorted((*found, *chosen), key=lambda wheel: wheel.name)))

    def _require_remote(self, lock: Lock) -> None:
        """That an index on the network does not send the hub to its own files."""
        local = [wheel for wheel in lock.wheels if wheel.url.startswith("file:")]
        if local and not self._network.reads_folders:
            what = f"The package index names a file of this machine for {local[0].name}, which is not read."
            raise Failure(kind=Kind.INDEX_BROKEN, what=what, advice=TELL, package=local[0].name).error()

    async def _explained(self, errors: str, request: ResolveRequest, question: UvInput) -> PrebuiltError:
        seen: Collection[str] = ()
        if self._seen is not None:
            with suppress(SurroundingsError):  # there is something to say without it
                seen = await self._seen()
        # In a thread: guessing a misspelt name looks at every seen one.
        return await asyncio.to_thread(explain, errors, _question(request, question, seen))

    def _offer(self, versions: Mapping[str, Version]) -> Path:
        """A folder with a metadata-only wheel for each package of a base.

        Its name comes from its content and it appears whole, so that uv's cache and other processes can rely on it.
        """
        listing = "\n".join(f"{name}=={version}" for name, version in sorted(versions.items()))
        place = self._bases / hashlib.sha256(listing.encode()).hexdigest()
        if place.is_dir():
            return place
        make_folder(self._bases, cache_dir=self._cache_dir)
        made = Path(tempfile.mkdtemp(dir=self._bases, prefix=".new-"))
        try:
            for name, version in versions.items():
                filename, content = metadata_wheel(name, version)
                (made / filename).write_bytes(content)
            # Somebody else may have been faster: then theirs is as good.
            with suppress(OSError):
                made.rename(place)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        if not place.is_dir():
            raise FileNotFoundError(f"{place} could not be made")
        return place

    def _command(self, probe: BaseProbe, platform: str, places: Sequence[Path]) -> list[str]:
        """Nothing in it comes from a user: everybody on the machine can list processes, and a requirement that
        begins with a dash would be an option."""
        return [
            self._uv,
            *_PIP_COMPILE,
            *("--python", sys.executable, "--python-version", probe.python_version, "--python-platform", platform),
            *("--cache-dir", str(self._cache)),
            *(argument for place in places for argument in ("--find-links", str(place))),
            "-",
        ]

    async def _run(self, command: Sequence[str], folder: Path, requirements: str) -> tuple[int, str]:
        """Exit status and standard error."""
        process = await self._start(command, folder)
        try:
            _, errors = await asyncio.wait_for(process.communicate(requirements.encode()), self._timeout_seconds)
        except asyncio.TimeoutError as error:
            raise BuildTimeout(
                "Finding versions that fit together took too long. Ask for fewer packages, or say which versions you "
                "need."
            ) from error
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                # Shielded, so that a second cancellation does not leave a zombie behind.
                await asyncio.shield(process.wait())
        log.debug("uv ended with %s", process.returncode)
        return process.returncode or 0, errors.decode(errors="replace")

    async def _start(self, command: Sequence[str], folder: Path) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                cwd=folder,
                env={
                    **self._network.uv_environment(folder),
                    "UV_HTTP_TIMEOUT": str(self._request_timeout_seconds),
                    "UV_HTTP_RETRIES": str(self._retries),
                },
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                # A process group of its own: uv asks a Python about itself, and that goes with it.
                start_new_session=True,
            )
        except OSError as error:
            raise SurroundingsError(
                f"Packages cannot be looked up at the moment. {TELL}",
                detail=f"uv cannot be started: {error}",
            ) from error


def _write(folder: Path, question: UvInput) -> None:
    (folder / "constraints.txt").write_text(question.constraints)
    (folder / "uv.toml").write_text(question.settings)
    (folder / "pylock.toml").write_text(question.pins)


def _question(request: ResolveRequest, question: UvInput, seen: Collection[str]) -> Question:
    return Question(
        requirements={requirement_name(requirement): requirement for requirement in request.requirements},
        protected={name: str(version) for name, version in question.protected.items()},
        installed={name: str(version) for name, version in question.versions.items()},
        python_version=request.probe.python_version,
        machine=request.probe.machine,
        seen={*seen, *request.probe.distributions},
    )


def _lock(
    output: str, probe: BaseProbe, present: Mapping[str, Version], built: Sequence[LockedWheel]
) -> tuple[Lock, tuple[LockedWheel, ...]]:
    """What uv found on the index, and of what was built. What the base has already is left out: uv may have seen
    nothing but our metadata of it."""
    document = tomllib.loads(output)
    found = [package for package in document.get("packages", ()) if not _is_present(package, present)]
    versions = {package["name"]: Version(package["version"]) for package in found}
    chosen = tuple(wheel for wheel in built if versions.get(wheel.name) == Version(wheel.version))
    names = {wheel.name for wheel in chosen}
    document["packages"] = [package for package in found if package["name"] not in names]
    try:
        return parse_pylock(tomli_w.dumps(document), probe, source="the package index"), chosen
    except MalformedRequest as error:
        failure = Failure(kind=Kind.INDEX_BROKEN, what=error.message, advice=TELL)
        raise failure.error(detail=error.detail) from error


def _is_present(package: Mapping[str, str], present: Mapping[str, Version]) -> bool:
    version = present.get(package["name"])
    return version is not None and version == Version(package["version"])
