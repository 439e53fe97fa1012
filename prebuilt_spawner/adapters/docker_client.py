"""Docker's API from asyncio: threads of our own, and library errors turned into ours once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException

from ..errors import EngineFailure, EngineUnavailable, PrebuiltError, StorageFailure

T = TypeVar("T")

_CLOSE_SECONDS = 10

_UNREACHABLE = "The container engine cannot be reached. Try again in a few minutes, or tell your administrator."
_REFUSED = "The container engine could not do what was needed. Try again, or tell your administrator."
_FULL = "The disk of the container engine is full. Tell your administrator."


def engine_error(text: str) -> PrebuiltError:
    """The error for what the engine said; the words go into the administrator's detail."""
    if "no space left on device" in text.lower():
        return StorageFailure(_FULL, detail=text)
    return EngineFailure(_REFUSED, detail=text)


@contextmanager
def translated() -> Iterator[None]:
    """Turns the errors of docker-py and of the HTTP library below it into ours."""
    try:
        yield
    except APIError as error:
        raise engine_error(str(error)) from error
    except (requests.exceptions.RequestException, DockerException, OSError) as error:
        raise EngineUnavailable(_UNREACHABLE, detail=f"{type(error).__name__}: {error}") from error


class Cancelled(Exception):
    """The waiter left: the thread's work is to stop. Never reaches a caller."""


class DockerClient:
    """Runs functions of a docker-py client on threads that belong to it.

    Args:
        client_kwargs: For `docker.APIClient`, before what the environment says (`DOCKER_HOST` and the like).
        threads: How many calls go on at once.
        timeout_seconds: For one answer of the engine, not for transfers.
    """

    def __init__(self, client_kwargs: Mapping[str, Any], *, threads: int = 8, timeout_seconds: int = 60) -> None:
        self._kwargs = {"version": "auto", "timeout": timeout_seconds, **client_kwargs}
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="prebuilt-engine")
        self._local = threading.local()
        self._clients: list[docker.APIClient] = []
        self._running: set[threading.Event] = set()

    def _client(self) -> docker.APIClient:
        # A client for each thread: a requests session is not made for several.
        if not hasattr(self._local, "client"):
            self._local.client = docker.APIClient(**{**docker.utils.kwargs_from_env(), **self._kwargs})
            self._clients.append(self._local.client)
        return self._local.client

    async def run(self, work: Callable[[docker.APIClient, threading.Event], T]) -> T:
        """Run `work(client, stop)` on a thread. When the caller is cancelled, `stop` is set and nobody waits.

        Raises:
            EngineUnavailable, EngineFailure, StorageFailure: What docker-py raised, translated.
        """
        stop = threading.Event()

        def job() -> T:
            self._running.add(stop)
            try:
                with translated():
                    return work(self._client(), stop)
            finally:
                self._running.discard(stop)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, job)
        except asyncio.CancelledError:
            stop.set()
            raise

    async def close(self) -> None:
        """Stop what runs, wait for it a while, and release connections and threads."""
        for stop in list(self._running):
            stop.set()
        ended = asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(ended, _CLOSE_SECONDS)
        for client in self._clients:
            client.close()
