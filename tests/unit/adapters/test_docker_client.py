"""Threads of the engine's client, without an engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prebuilt_spawner.adapters.docker_client import DockerClient


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[DockerClient]:
    """One that has nobody to talk to."""
    client = DockerClient({"base_url": f"unix://{tmp_path}/nobody.sock", "version": "1.41"})
    yield client
    await client.close()


async def test_the_event_loop_never_waits_for_a_thread_of_slow_work_to_start(
    client: DockerClient, monkeypatch: pytest.MonkeyPatch
):
    """`Thread.start` returns when the thread runs; here it runs only after the event loop has gone on."""
    start = threading.Thread.start
    went_on = threading.Event()

    def start_late(thread: threading.Thread) -> None:
        if thread.name == "prebuilt-engine-slow":
            assert went_on.wait(10), "the event loop waits"
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    work = asyncio.ensure_future(client.run_slow(lambda client, stop: "done"))
    await asyncio.sleep(0)
    went_on.set()
    assert await work == "done"


async def test_slow_work_that_runs_when_the_client_is_closed_is_told_to_stop(client: DockerClient):
    stopped = []
    begun = threading.Event()

    def work(client: object, stop: threading.Event) -> None:
        begun.set()
        stopped.append(stop.wait(10))

    running = asyncio.ensure_future(client.run_slow(work))
    await asyncio.to_thread(begun.wait, 10)
    await client.close()
    await running
    assert stopped == [True]
