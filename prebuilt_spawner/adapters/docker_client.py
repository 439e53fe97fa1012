"""Docker's API from asyncio: threads of our own, and library errors turned into ours once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException

from ..build.failure import Failure, Kind
from ..errors import EngineFailure, EngineUnavailable, PrebuiltError
from .stoppable import CLOSE_SECONDS, Cancelled, StoppableThreads

__all__ = ["Cancelled", "DockerClient", "engine_error", "translated"]

T = TypeVar("T")

_UNREACHABLE = Failure(
    kind=Kind.ENGINE_UNREACHABLE,
    what="The container engine cannot be reached.",
    advice="Try again in a few minutes, or tell your administrator.",
)
_REFUSED = "The container engine could not do what was needed. Try again, or tell your administrator."
_FULL = Failure(
    kind=Kind.ENGINE_DISK_FULL, what="The disk of the container engine is full.", advice="Tell your administrator."
)
_NO_SPACE = ("no space left on device", "disk quota exceeded")
_CLOSING = "The hub is being stopped. Try again in a few minutes."


def engine_error(text: str) -> PrebuiltError:
    """The error for what the engine said; the words go into the administrator's detail."""
    if any(words in text.lower() for words in _NO_SPACE):
        return _FULL.error(detail=text)
    return EngineFailure(_REFUSED, detail=text)


@contextmanager
def translated() -> Iterator[None]:
    """Turns the errors of docker-py and of the HTTP library below it into ours."""
    try:
        yield
    except APIError as error:
        raise engine_error(str(error)) from error
    except (requests.exceptions.RequestException, DockerException, OSError) as error:
        raise _UNREACHABLE.error(detail=f"{type(error).__name__}: {error}") from error


class DockerClient:
    """Runs functions of a docker-py client on threads that belong to it.

    What the engine answers at once (`run`) has a pool of its own, and never waits behind what may take minutes
    (`run_slow`).

    Args:
        client_kwargs: For `docker.APIClient`, before what the environment says (`DOCKER_HOST` and the like).
        threads: How many quick calls go on at once.
        timeout_seconds: For one answer of the engine, not for transfers.
    """

    def __init__(self, client_kwargs: Mapping[str, Any], *, threads: int = 8, timeout_seconds: int = 60) -> None:
        self._kwargs = {"version": "auto", "timeout": timeout_seconds, **client_kwargs}
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="prebuilt-engine")
        self._slow = StoppableThreads("prebuilt-engine-slow")
        self._local = threading.local()
        self._clients: list[docker.APIClient] = []
        self._running: dict[Future[Any], threading.Event] = {}

    async def run(self, work: Callable[[docker.APIClient, threading.Event], T]) -> T:
        """Run `work(client, stop)`, which the engine answers at once: an inspection, a tag, a removal.

        When the caller is cancelled, `stop` is set and nobody waits.

        Raises:
            EngineUnavailable, EngineFailure, StorageFailure: What docker-py raised, translated.
        """
        stop = threading.Event()

        def job() -> T:
            with translated():
                return work(self._thread_client(), stop)

        return await self._outcome(self._threads.submit(job), stop)

    async def run_slow(self, work: Callable[[docker.APIClient, threading.Event], T]) -> T:
        """As `run`, for what takes its time: a pull, a probe, a load. The work must look at `stop` all the while.

        Each has a thread and a client of its own, without a limit: one that hangs delays no other. The callers limit
        them: one pull for each name, one probe for each base, and as many loads as builds.
        """

        def job(stop: threading.Event) -> T:
            with translated(), contextlib.closing(self._new_client()) as client:
                return work(client, stop)

        try:
            return await self._slow.run(job)
        except Cancelled as error:  # by `close`
            raise EngineUnavailable(_CLOSING) from error

    async def close(self) -> None:
        """Stop what runs, wait for it a while, and release connections and threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        running = dict(self._running)
        for stop in running.values():
            stop.set()
        await self._slow.close(CLOSE_SECONDS)
        await asyncio.to_thread(concurrent.futures.wait, running, CLOSE_SECONDS)
        for client in self._clients:
            client.close()

    async def _outcome(self, future: Future[T], stop: threading.Event) -> T:
        self._running[future] = stop
        future.add_done_callback(lambda _: self._running.pop(future, None))
        try:
            return await asyncio.wrap_future(future)
        except Cancelled as error:  # by `close`
            raise EngineUnavailable(_CLOSING) from error
        except asyncio.CancelledError:
            stop.set()
            raise

    def open_client(self) -> docker.APIClient:
        """A client for the caller alone, who closes it."""
        return self._new_client()

    def _new_client(self) -> docker.APIClient:
        return docker.APIClient(**{**docker.utils.kwargs_from_env(), **self._kwargs})

    def _thread_client(self) -> docker.APIClient:
        # A client for each thread: a requests session is not made for several.
        if not hasattr(self._local, "client"):
            self._local.client = self._new_client()
            self._clients.append(self._local.client)
        return self._local.client
