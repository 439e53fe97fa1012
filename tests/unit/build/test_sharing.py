"""Tests of `prebuilt_spawner.build.sharing`."""

from __future__ import annotations

import asyncio

import pytest

from prebuilt_spawner.build.events import BuildEvent, Phase, ignore
from prebuilt_spawner.build.sharing import SharedTasks
from prebuilt_spawner.build.trail import MAX_OUTPUT_CHARACTERS, EventTrail


class Gate:
    """Work that ends when it is told to, and says how often it ran."""

    def __init__(self) -> None:
        self.runs = 0
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.open = asyncio.Event()

    async def work(self, report) -> int:
        self.runs += 1
        self.started.set()
        report(BuildEvent(phase=Phase.RESOLVING, message=f"run {self.runs}"))
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return self.runs


async def test_all_who_want_the_same_get_one_run():
    """Ten waiters for one key share one run and its result."""
    gate, tasks = Gate(), SharedTasks[int]()
    waiters = [asyncio.create_task(tasks.run("a", gate.work, report=ignore)) for _ in range(10)]
    await gate.started.wait()
    gate.open.set()
    assert await asyncio.gather(*waiters) == [1] * 10


async def test_different_keys_do_not_wait_for_each_other():
    """A key's task ends while another key's still runs."""
    slow, quick, tasks = Gate(), Gate(), SharedTasks[int]()
    other = asyncio.create_task(tasks.run("slow", slow.work, report=ignore))
    quick.open.set()
    assert await tasks.run("quick", quick.work, report=ignore) == 1
    slow.open.set()
    await other


async def test_a_waiter_that_leaves_does_not_disturb_the_others():
    """The task goes on while one waiter is left, and the one that is left gets the result."""
    gate, tasks = Gate(), SharedTasks[int]()
    leaver = asyncio.create_task(tasks.run("a", gate.work, report=ignore))
    stayer = asyncio.create_task(tasks.run("a", gate.work, report=ignore))
    await gate.started.wait()
    leaver.cancel()
    await asyncio.wait([leaver])
    gate.open.set()
    assert await stayer == 1
    assert not gate.cancelled.is_set()


async def test_the_last_waiter_to_leave_stops_the_task():
    """When nobody waits any more the task is cancelled, and who comes next starts anew."""
    gate, tasks = Gate(), SharedTasks[int]()
    waiters = [asyncio.create_task(tasks.run("a", gate.work, report=ignore)) for _ in range(3)]
    await gate.started.wait()
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters)
    again = asyncio.create_task(tasks.run("a", gate.work, report=ignore))
    await gate.cancelled.wait()
    gate.open.set()
    assert await again == 2


async def test_who_comes_while_a_task_is_being_stopped_waits_for_its_end():
    """There is never more than one task for a key, however slowly the old one ends."""
    tasks, running, most, slow_end = SharedTasks[int](), 0, 0, asyncio.Event()

    async def work(report) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await slow_end.wait()
            raise
        finally:
            running -= 1
        return 0

    waiters = []
    for _ in range(3):
        waiters.append(asyncio.create_task(tasks.run("a", work, report=ignore)))
        await asyncio.sleep(0.001)
        waiters[-1].cancel()
        await asyncio.wait([waiters[-1]])
    slow_end.set()
    await tasks.close()
    assert most == 1


async def test_every_waiter_gets_the_error():
    """An error of the task reaches each waiter, and the next run starts anew."""
    runs = []

    async def fail(report) -> int:
        runs.append(1)
        raise ValueError("no")

    tasks = SharedTasks[int]()
    results = await asyncio.gather(*(tasks.run("a", fail, report=ignore) for _ in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["no"] * 3
    assert len(runs) == 1
    with pytest.raises(ValueError, match="no"):
        await tasks.run("a", fail, report=ignore)
    assert len(runs) == 2


async def test_a_late_waiter_is_told_what_was_reported_before():
    """Events are replayed to who comes later, in order, and each waiter hears each event once."""
    gate, tasks = Gate(), SharedTasks[int]()
    first, second = [], []
    early = asyncio.create_task(tasks.run("a", gate.work, report=first.append))
    await gate.started.wait()
    await asyncio.sleep(0)
    late = asyncio.create_task(tasks.run("a", gate.work, report=second.append))
    gate.open.set()
    await asyncio.gather(early, late)
    assert [event.message for event in first] == [event.message for event in second] == ["run 1"]


async def test_a_late_waiter_is_told_how_long_ago_each_step_began():
    """Of a step that counts, its beginning is meant, and not its newest count."""
    now, told, tell = 100.0, [], []
    tasks = SharedTasks[None](now=lambda: now)
    started, go = asyncio.Event(), asyncio.Event()

    async def work(report) -> None:
        tell.append(report)
        started.set()
        await go.wait()

    early = asyncio.create_task(tasks.run("a", work, report=ignore))
    await started.wait()
    for phase, done, passed in ((Phase.RESOLVING, 0, 5), (Phase.DOWNLOADING, 1, 20), (Phase.DOWNLOADING, 2, 3)):
        tell[0](BuildEvent(phase=phase, done=done, total=done and 9))
        await asyncio.sleep(0)
        now += passed
    late = asyncio.create_task(tasks.run("a", work, report=told.append))
    await asyncio.sleep(0)
    tell[0](BuildEvent(phase=Phase.SAVING))
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(early, late)
    assert [(event.phase, event.done, event.age_seconds) for event in told] == [
        (Phase.RESOLVING, 0, 28),
        (Phase.DOWNLOADING, 2, 23),
        (Phase.SAVING, 0, 0),
    ]


async def test_closing_ends_every_task():
    """After `close` no task runs, and those who waited are cancelled."""
    gate, tasks = Gate(), SharedTasks[int]()
    waiter = asyncio.create_task(tasks.run("a", gate.work, report=ignore))
    await gate.started.wait()
    await tasks.close()
    assert gate.cancelled.is_set()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_who_comes_later_is_told_what_the_start_does_however_much_was_counted_and_printed_since():
    """A summary is neither replaced by a newer count nor forgotten with the output that came with it."""
    gate, tasks = asyncio.Event(), SharedTasks[int]()

    async def work(report) -> int:
        report(BuildEvent(phase=Phase.SAVING, total=3, summary="It is built first.", output="x"))
        for number in range(1, 4):
            report(BuildEvent(phase=Phase.SAVING, message="Saving", done=number, total=3))
            report(BuildEvent(phase=Phase.SAVING, output="y" * MAX_OUTPUT_CHARACTERS))
        await gate.wait()
        return 1

    first = asyncio.create_task(tasks.run("a", work, report=ignore))
    await asyncio.sleep(0)
    heard: list[BuildEvent] = []
    second = asyncio.create_task(tasks.run("a", work, report=heard.append))
    while sum(len(event.output) for event in heard) < MAX_OUTPUT_CHARACTERS:
        await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, second)
    late = EventTrail()
    for event in heard:
        late.add(event)
    assert [event.summary for event in late if event.summary] == ["It is built first."]


async def test_a_key_is_in_it_while_who_comes_would_join():
    gate, tasks = Gate(), SharedTasks[int]()
    assert "a" not in tasks
    waiter = asyncio.create_task(tasks.run("a", gate.work, report=ignore))
    await gate.started.wait()
    assert "a" in tasks
    gate.open.set()
    await waiter
    assert "a" not in tasks
