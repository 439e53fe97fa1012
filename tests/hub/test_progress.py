"""What viewers see while an environment is prepared."""

from __future__ import annotations

import asyncio
import threading

import aiohttp
import pytest

from prebuilt_spawner.build.events import BuildEvent, Phase
from prebuilt_spawner.hub import progress
from prebuilt_spawner.hub.progress import ProgressBuffer, progress_event

from .doubles import ADMIN_TOKEN, Hub


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BATCH_INTERVAL_SECONDS", 0)


def event(message: str, phase: Phase = Phase.RESOLVING, done: int = 0, total: int = 0) -> BuildEvent:
    return BuildEvent(phase=phase, message=message, done=done, total=total)


async def read(buffer: ProgressBuffer) -> list[str]:
    return [event.message async for event in buffer.read()]


async def test_every_reader_gets_everything_in_order() -> None:
    buffer = ProgressBuffer()
    buffer.attach()
    early = asyncio.create_task(read(buffer))
    await asyncio.sleep(0)
    buffer.report(event("one"))
    await asyncio.sleep(0)
    buffer.report(event("two"))
    middle = asyncio.create_task(read(buffer))
    await asyncio.sleep(0)
    buffer.close(complete=True)
    assert await early == await middle == await read(buffer) == ["one", "two"]


async def test_events_come_from_any_thread() -> None:
    buffer = ProgressBuffer()
    buffer.attach()
    reading = asyncio.create_task(read(buffer))
    await asyncio.sleep(0)

    def work() -> None:
        for number in range(100):
            buffer.report(event(str(number)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    buffer.close(complete=True)
    assert len(await reading) == 400


async def test_counting_events_of_one_step_replace_each_other() -> None:
    """A download of a thousand pieces is one line for who comes late, and the newest state for who watches."""
    buffer = ProgressBuffer()
    buffer.attach()
    buffer.report(event("start", Phase.DOWNLOADING))
    for done in range(1000):
        buffer.report(event(f"{done} of 1000", Phase.DOWNLOADING, done, 1000))
    watching = buffer.read()
    assert [(await anext(watching)).message, (await anext(watching)).message] == ["start", "999 of 1000"]
    buffer.report(event("1000 of 1000", Phase.DOWNLOADING, 1000, 1000))
    assert (await anext(watching)).message == "1000 of 1000"
    buffer.close(complete=True)
    assert [event async for event in watching] == []


async def test_a_report_after_the_end_of_the_loop_does_not_raise() -> None:
    buffer = ProgressBuffer()
    buffer._loop = asyncio.new_event_loop()
    buffer._loop.close()
    buffer.report(event("late"))


def test_text_from_outside_can_neither_format_nor_control_the_page() -> None:
    shown = progress_event(event("\x1b[31m<script>alert(1)</script>\r\n\x07ok\x1b[0m"))
    assert shown["html_message"] == "&lt;script&gt;alert(1)&lt;/script&gt;   ok"
    assert "\x1b" not in shown["message"]


def test_the_bar_never_goes_back_and_ends_below_the_servers_own_part() -> None:
    shown = [progress_event(event("", phase, done, 10))["progress"] for phase in Phase for done in (-1, 0, 5, 10, 99)]
    assert shown == sorted(shown)
    assert shown[0] > 0
    assert shown[-1] <= progress.STARTING_PERCENT < 100


async def test_viewers_of_a_pending_start_see_the_build_and_then_the_server(hub: Hub) -> None:
    """Over HTTP, each from the first event, while the build goes on."""
    hub.manager.gate = asyncio.Event()
    starting = asyncio.create_task(hub.start("ada", {"packages": ["six"]}))
    await hub.manager.reached.wait()
    headers = {"Authorization": f"token {ADMIN_TOKEN}"}
    url = f"{hub.api}/users/ada/server/progress"
    async with hub.session.get(url, headers=headers) as one, hub.session.get(url, headers=headers) as other:
        for viewer in (one, other):
            assert "Finding versions" in await _until(viewer, b"Finding versions")
        hub.manager.gate.set()
        for viewer in (one, other):
            rest = (await viewer.read()).decode()
            assert '"ready": true' in rest
            assert "Spawning server" in rest
    assert (await starting).status == 201


async def _until(answer: aiohttp.ClientResponse, word: bytes) -> str:
    text = b""
    while word not in text:
        line = await answer.content.readline()
        assert line, text
        text += line
    return text.decode()


async def test_a_viewer_sees_the_events_before_anything_is_ready(hub: Hub) -> None:
    hub.manager.gate = asyncio.Event()
    starting = asyncio.create_task(hub.start("ada", {"packages": ["six"]}))
    await hub.manager.reached.wait()
    spawner = hub.spawner("ada")
    viewing = spawner.progress()
    first = await anext(viewing)
    assert first["message"] == "Finding versions"
    hub.manager.gate.set()
    rest = [shown async for shown in viewing]
    assert rest
    assert all(shown["progress"] >= progress.STARTING_PERCENT for shown in rest)
    await starting
