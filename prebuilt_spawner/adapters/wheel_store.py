"""Wheels and their fragments on the hub's disk, under names that their content gives them.

    wheels/<sha256[:2]>/<sha256>/<file name>       as the index served it, verified
    installed/<key[:2]>/<key>.tar                  the tar entries of its files in one scheme
    installed/<key[:2]>/<key>.json                 their index; written last
    fragments/<key[:2]>/<key>.tar                  the tar entries of its bytecode and of RECORD
    fragments/<key[:2]>/<key>.json                 the index of both; written last

Every file appears whole under its name or not at all, and the same name always means the same content. So any number of
threads and processes can share a store without locks: the worst is that something is made twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import requests

from ..build.events import BuildEvent, Phase, Report, ignore
from ..build.failure import TELL, Failure, Kind, disk_failure, failure_of
from ..build.interface import BytecodeCompiler
from ..build.sharing import SharedTasks
from ..environment.base import BaseImage, BaseProbe
from ..environment.lock import LockedFile, LockedWheel
from ..errors import StorageFailure, UnbuildableEnvironment
from ..image.bytecode import modules_of, with_bytecode
from ..image.fragment import (
    Fragment,
    InstalledWheel,
    fragment_from_json,
    fragment_key,
    fragment_to_json,
    installed_from_json,
    installed_key,
)
from ..image.whole_file import appearing_whole
from ..image.worker_protocol import job_for
from .all_done import all_done, when_made
from .built_wheels import built_file
from .cache_folder import make_folder
from .cache_limit import note_use
from .download_progress import DownloadProgress, refuse_unsized
from .install_workers import InstallWorkers
from .network import NetworkSettings
from .turns import LargestFirst
from .wheel_download import Download

T = TypeVar("T")

_BLOCK_BYTES = 1024 * 1024


class DiskWheelStore:
    """Implements `prebuilt_spawner.build.interface.WheelStore` in a folder.

    Args:
        network: Proxies, certificates and credentials.
        cache_dir: The folder; made when needed.
        compiler: Makes the bytecode; it is closed with the store.
        workers: How many processes install wheels; None for one for each processor.
        max_parallel_downloads: How many wheels are on their way at once.
        silence_seconds: How long a server may send nothing before the download counts as failed.
        retries: How often a download is tried again after what may pass.
    """

    def __init__(
        self,
        network: NetworkSettings,
        cache_dir: Path,
        compiler: BytecodeCompiler,
        *,
        workers: int | None = None,
        max_parallel_downloads: int = 8,
        silence_seconds: float = 30,
        retries: int = 3,
    ) -> None:
        self._network = network
        self._cache_dir = cache_dir.absolute()
        self._wheels = self._cache_dir / "wheels"
        self._installed = self._cache_dir / "installed"
        self._fragments = self._cache_dir / "fragments"
        self._compiler = compiler
        self._worker_count = workers or os.cpu_count() or 1
        self._silence_seconds = silence_seconds
        self._retries = retries
        self._download_threads = ThreadPoolExecutor(max_parallel_downloads, thread_name_prefix="wheel-download")
        # Of its own, so that a quick look at the disk does not queue behind slow downloads.
        self._disk_threads = ThreadPoolExecutor(2, thread_name_prefix="wheel-store")
        self._sessions = threading.local()
        self._all_sessions: list[requests.Session] = []
        self._downloads: SharedTasks[None] = SharedTasks()
        self._preparations: SharedTasks[Fragment] = SharedTasks()
        self._ahead: dict[str, asyncio.Task[Fragment]] = {}
        """Preparations that nobody waits for yet, by the fragment's key."""
        self._under_way: dict[Path, Download] = {}
        # The large ones first: they would else be worked on alone at the end. With two more than there are processors
        # these always have something to do.
        self._turns = LargestFirst(self._worker_count + 2)
        # Started when they are needed first.
        self._workers: InstallWorkers | None = None

    async def fetch(
        self,
        wheels: Sequence[LockedFile],
        *,
        report: Report,
        max_unsized_bytes: int | None = None,
        for_base: tuple[BaseImage, BaseProbe] | None = None,
    ) -> None:
        """See `prebuilt_spawner.build.interface.WheelStore`. Reports bytes, of what was not here yet."""
        there = await asyncio.gather(*(self._on_disk(self._is_here, wheel) for wheel in wheels))
        missing = sorted(
            {wheel for wheel, here in zip(wheels, there, strict=True) if not here},
            key=lambda wheel: (-(wheel.size_bytes or 0), wheel.name),
        )
        if not missing:
            await self._on_disk(self._check_unsized, wheels, max_unsized_bytes)
            return
        tasks = [asyncio.create_task(self._fetched(wheel, for_base)) for wheel in missing]
        progress = DownloadProgress(missing, lambda wheel: self._under_way.get(self._file_path(wheel)))

        def reached() -> int:
            refuse_unsized(progress.received, max_unsized_bytes)
            return progress.received_bytes()

        try:
            await all_done(tasks, lambda: report(progress.event()), reached)
            await self._on_disk(self._check_unsized, wheels, max_unsized_bytes)
        except BaseException:
            if for_base is not None:
                self._leave_ahead(missing, for_base[1])
            raise
        report(progress.last_event())

    def path(self, file: LockedFile) -> Path:
        """See `prebuilt_spawner.build.interface.WheelStore`."""
        return self._file_path(file)

    async def fragments(
        self,
        wheels: Sequence[LockedWheel],
        base: BaseImage,
        probe: BaseProbe,
        *,
        report: Report,
        made: Callable[[Fragment], None] = ignore,
    ) -> tuple[Fragment, ...]:
        """See `prebuilt_spawner.build.interface.WheelStore`. Reports packages.

        Raises:
            SurroundingsError: A worker process broke down.
        """
        keys = {wheel.sha256: fragment_key(wheel.sha256, probe) for wheel in wheels}
        known = await asyncio.gather(*(self._on_disk(self._read, keys[wheel.sha256], wheel, probe) for wheel in wheels))
        there = {wheel.sha256: fragment for wheel, fragment in zip(wheels, known, strict=True) if fragment is not None}
        for fragment in sorted(there.values(), key=lambda fragment: -fragment.size_bytes):
            made(fragment)
        missing = list(dict.fromkeys(wheel for wheel in wheels if wheel.sha256 not in there))
        tasks = [
            asyncio.create_task(
                self._preparations.run(keys[wheel.sha256], partial(self._prepare, wheel, base, probe), report=ignore)
            )
            for wheel in missing
        ]
        for task in tasks:
            when_made(task, made)

        def done() -> int:
            return len(there) + sum(task.done() for task in tasks)

        def tell() -> None:
            report(BuildEvent(phase=Phase.PREPARING, message="Preparing packages", done=done(), total=len(keys)))

        if missing:
            # From now on they go on for as long as this waits for them.
            await asyncio.sleep(0)
            self._leave_ahead(missing, probe)
            await all_done(tasks, tell, done)
            tell()
        prepared = {task.result().wheel_sha256: task.result() for task in tasks}
        return tuple((there | prepared)[wheel.sha256] for wheel in wheels)

    async def close(self) -> None:
        """See `prebuilt_spawner.build.interface.WheelStore`."""
        await self._downloads.close()
        await self._preparations.close()
        await asyncio.gather(*self._ahead.values(), return_exceptions=True)
        if self._workers is not None:
            await self._workers.close()
        await self._compiler.close()
        # A thread that a silent server holds ends within the silence that it may keep; nobody waits for it.
        self._download_threads.shutdown(wait=False, cancel_futures=True)
        self._disk_threads.shutdown(wait=False, cancel_futures=True)
        for session in self._all_sessions:
            session.close()

    async def _on_disk(self, work: Callable[..., T], *arguments: object) -> T:
        """Run a short piece of work with files in a thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._disk_threads, work, *arguments)
        except OSError as error:
            raise disk_failure(error).error(detail=str(error)) from error

    def _check_unsized(self, wheels: Sequence[LockedFile], max_bytes: int | None) -> None:
        """What is here counts whoever brought it, or who tries again would have it."""
        if max_bytes is not None:
            unsized = (wheel for wheel in wheels if wheel.size_bytes is None)
            refuse_unsized({wheel: self._file_path(wheel).stat().st_size for wheel in unsized}, max_bytes)

    def _make_folder(self, folder: Path) -> None:
        make_folder(folder, cache_dir=self._cache_dir)

    # Wheels

    def _file_path(self, file: LockedFile) -> Path:
        # Locks are read strictly, and a path is still not made from whatever a text says.
        if Path(file.filename).name != file.filename or len(file.sha256) != 64 or not file.sha256.isalnum():
            raise ValueError(f"not a file's name and hash: {file.filename!r}, {file.sha256!r}")
        return self._wheels / file.sha256[:2] / file.sha256 / file.filename

    def _is_here(self, wheel: LockedFile) -> bool:
        """Whole, as far as its size tells; where the index said none, as its hash tells."""
        path = self._file_path(wheel)
        if not path.is_file():
            return False
        note_use(path)
        return (
            path.stat().st_size == wheel.size_bytes if wheel.size_bytes is not None else _is_intact(path, wheel.sha256)
        )

    async def _fetched(self, wheel: LockedFile, for_base: tuple[BaseImage, BaseProbe] | None) -> None:
        await self._downloads.run(self._file_path(wheel), partial(self._download, wheel), report=ignore)
        if for_base is not None and isinstance(wheel, LockedWheel):
            self._prepare_ahead(wheel, *for_base)

    async def _download(self, wheel: LockedFile, report: Report) -> None:
        path = self._file_path(wheel)
        await self._on_disk(self._make_folder, path.parent)
        download = Download(wheel, path, self._network, silence_seconds=self._silence_seconds, retries=self._retries)
        self._under_way[path] = download
        try:
            await asyncio.get_running_loop().run_in_executor(self._download_threads, self._run, download)
        except asyncio.CancelledError:
            download.stop()
            raise
        finally:
            del self._under_way[path]

    def _run(self, download: Download) -> None:
        """In a download thread, each of which keeps its connections."""
        session: requests.Session | None = getattr(self._sessions, "value", None)
        if session is None:
            try:
                session = self._sessions.value = self._network.session()
            except OSError as error:
                failure = Failure(kind=Kind.INDEX_CERTIFICATE, what="Packages cannot be downloaded.", advice=TELL)
                raise failure.error(detail=f"The certificates cannot be read: {error}") from error
            self._all_sessions.append(session)
        download.run(session)

    # Fragments

    def _paths(self, folder: Path, key: str) -> tuple[Path, Path]:
        """(body, index)."""
        return folder / key[:2] / f"{key}.tar", folder / key[:2] / f"{key}.json"

    def _read(self, key: str, wheel: LockedWheel, probe: BaseProbe) -> Fragment | None:
        """The fragment of this key; None where there is none, or where what is there is damaged."""
        body, index = self._paths(self._fragments, key)
        installed, _ = self._paths(self._installed, installed_key(wheel.sha256, probe))
        try:
            fragment = fragment_from_json(index.read_bytes(), installed=installed, compiled=body)
            note_use(installed, body)
            sizes = {path: path.stat().st_size for path in (installed, body)}
        except (FileNotFoundError, ValueError):
            return None
        for file in fragment.files:
            sizes[file.body] -= file.length_bytes
        return fragment if fragment.wheel_sha256 == wheel.sha256 and not any(sizes.values()) else None

    def _read_installed(self, wheel: LockedWheel, probe: BaseProbe) -> InstalledWheel | None:
        """The wheel as installed in this scheme; None where there is none, or where what is there is damaged."""
        body, index = self._paths(self._installed, installed_key(wheel.sha256, probe))
        try:
            installed = installed_from_json(index.read_bytes(), body=body)
            note_use(body)
            missing_bytes = body.stat().st_size - sum(file.length_bytes for file in installed.files)
        except (FileNotFoundError, ValueError):
            return None
        return installed if installed.wheel_sha256 == wheel.sha256 and not missing_bytes else None

    def _prepare_ahead(self, wheel: LockedWheel, base: BaseImage, probe: BaseProbe) -> None:
        """Begin with the fragment of a wheel that is here, while others still come."""
        key = fragment_key(wheel.sha256, probe)
        if key in self._ahead:
            return

        def ended(task: asyncio.Task[Fragment]) -> None:
            if self._ahead.get(key) is task:
                del self._ahead[key]
            if not task.cancelled():
                task.exception()  # `fragments` tries again, and says so

        preparing = self._preparations.run(key, partial(self._prepare, wheel, base, probe), report=ignore)
        self._ahead[key] = asyncio.create_task(preparing)
        self._ahead[key].add_done_callback(ended)

    def _leave_ahead(self, wheels: Iterable[LockedFile], probe: BaseProbe) -> None:
        for wheel in wheels:
            task = self._ahead.pop(fragment_key(wheel.sha256, probe), None)
            if task is not None:
                task.cancel()

    async def _prepare(self, wheel: LockedWheel, base: BaseImage, probe: BaseProbe, report: Report) -> Fragment:
        async with self._turns.turn(wheel.size_bytes or 0):
            installed = await self._on_disk(self._read_installed, wheel, probe) or await self._install(wheel, probe)
            modules = modules_of(installed, cache_tag=probe.cache_tag)
            bytecode = await self._compiler.compile(base, probe, modules) if modules else {}
        key = fragment_key(wheel.sha256, probe)
        return await self._on_disk(self._write, key, installed, bytecode)

    def _write(self, key: str, installed: InstalledWheel, bytecode: Mapping[str, bytes]) -> Fragment:
        body, index = self._paths(self._fragments, key)
        self._make_folder(body.parent)
        fragment = with_bytecode(installed, bytecode, body=body)
        with appearing_whole(index) as stream:
            stream.write(fragment_to_json(fragment, installed=installed))
        return fragment

    def _located(self, wheel: LockedWheel) -> tuple[Path, str]:
        """Where the wheel is, and the SHA-256 that its bytes had when it came."""
        if wheel.source is None:
            path, sha256 = self._file_path(wheel), wheel.sha256
        else:
            built = built_file(self._cache_dir, wheel.sha256)
            path, sha256 = (built.path, built.sha256) if built is not None else (self._cache_dir, "")
        if not path.is_file():
            raise StorageFailure(f"The hub's copy of {wheel.name} has gone. Start again.", package=wheel.name)
        return path, sha256

    async def _install(self, wheel: LockedWheel, probe: BaseProbe) -> InstalledWheel:
        path, sha256 = await self._on_disk(self._located, wheel)
        body, index = self._paths(self._installed, installed_key(wheel.sha256, probe))
        await self._on_disk(self._make_folder, body.parent)
        if self._workers is None:
            self._workers = InstallWorkers(self._worker_count)
        try:
            await self._workers.run(job_for(wheel=path, wheel_sha256=wheel.sha256, probe=probe, body=body, index=index))
        except UnbuildableEnvironment as error:
            # The wheel's fault, unless our copy of it has changed since it was verified.
            if not await self._on_disk(_is_intact, path, sha256):
                await self._on_disk(path.unlink)
                raise StorageFailure(
                    f"The hub's copy of {wheel.name} was damaged and has been removed. Start again.",
                    detail=f"{path}: {error.detail or error.message}",
                    package=wheel.name,
                ) from error
            raise UnbuildableEnvironment(
                error.message, detail=error.detail, package=wheel.name, cause=failure_of(error).kind
            ) from error
        installed = await self._on_disk(self._read_installed, wheel, probe)
        if installed is None:
            raise StorageFailure(
                f"What was prepared from {wheel.name} cannot be read. {TELL}",
                detail=f"{body}, {index}",
                package=wheel.name,
            )
        return installed


def _is_intact(path: Path, sha256: str) -> bool:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest() == sha256
