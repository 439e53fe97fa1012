"""What viewers see while an environment is prepared."""

from __future__ import annotations

import asyncio
import html.parser
import threading

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prebuilt_spawner.build.events import BuildEvent, Phase, Report
from prebuilt_spawner.build.sharing import SharedTasks
from prebuilt_spawner.hub import progress
from prebuilt_spawner.hub.bar import STARTING_PERCENT, Bar
from prebuilt_spawner.hub.progress import ProgressBuffer, ProgressEvent

from .doubles import ADMIN_TOKEN, Hub


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "BATCH_INTERVAL_SECONDS", 0)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Page(html.parser.HTMLParser):
    """The elements of an `html_message`, its message, and the text of its `pre`."""

    def __init__(self, html_message: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: dict[str, str] = {}
        self.feed(html_message)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags:
            self.text[self.tags[-1]] = self.text.get(self.tags[-1], "") + data


def event(message: str, phase: Phase = Phase.RESOLVING, done: int = 0, total: int = 0) -> BuildEvent:
    return BuildEvent(phase=phase, message=message, done=done, total=total)


def printed(output: str) -> BuildEvent:
    return BuildEvent(phase=Phase.RESOLVING, output=output)


async def read(buffer: ProgressBuffer) -> list[str]:
    return [shown["message"] async for shown in buffer.read()]


async def shown_of(*events: BuildEvent) -> list[ProgressEvent]:
    """What somebody sees who comes when all is over."""
    buffer = ProgressBuffer()
    for one in events:
        buffer.report(one)
    buffer.close(complete=True)
    return [shown async for shown in buffer.read()]


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
    assert await early == ["Preparing the environment", "one", "two"]
    assert await middle == await read(buffer) == ["one", "two"]


async def test_events_come_from_any_thread() -> None:
    buffer = ProgressBuffer()
    buffer.attach()
    reading = asyncio.create_task(read(buffer))
    await asyncio.sleep(0)

    def work(name: int) -> None:
        for number in range(30):
            buffer.report(event(f"{name} {number}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(lambda: [thread.join() for thread in threads])
    buffer.close(complete=True)
    assert sorted((await reading)[1:]) == sorted(f"{name} {number}" for name in range(4) for number in range(30))


async def test_counting_events_of_one_step_replace_each_other() -> None:
    """A download of a thousand pieces is one line for who comes late, and the newest state for who watches."""
    buffer = ProgressBuffer()
    buffer.attach()
    buffer.report(event("start", Phase.DOWNLOADING))
    for done in range(1000):
        buffer.report(event("six", Phase.DOWNLOADING, done * 1000, 1_000_000))
    watching = buffer.read()
    assert [(await anext(watching))["message"], (await anext(watching))["message"]] == ["start", "six: 1.0 of 1.0 MB"]
    buffer.report(event("numpy", Phase.DOWNLOADING, 1_000_000, 1_000_000))
    assert (await anext(watching))["message"] == "numpy: 1.0 of 1.0 MB"
    buffer.close(complete=True)
    assert [event async for event in watching] == []


async def test_many_steps_stay_few_and_the_last_is_among_them() -> None:
    messages = [shown["message"] for shown in await shown_of(*(event(str(number)) for number in range(10_000)))]
    assert len(messages) <= 200
    assert (messages[0], messages[-1]) == ("0", "9999")


async def test_a_report_after_the_end_of_the_loop_does_not_raise() -> None:
    buffer = ProgressBuffer()
    buffer._loop = asyncio.new_event_loop()
    buffer._loop.close()
    buffer.report(event("late"))


async def test_what_was_reported_just_before_the_end_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause between two batches ends with the build."""
    monkeypatch.setattr(progress, "BATCH_INTERVAL_SECONDS", 3600)
    buffer = ProgressBuffer()
    buffer.attach()
    watching = buffer.read()
    await anext(watching)
    following = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    buffer.report(event("last words"))
    buffer.close(complete=False)
    assert (await asyncio.wait_for(following, 5))["message"] == "last words"


async def test_a_reader_that_leaves_ends_at_once() -> None:
    buffer = ProgressBuffer()
    buffer.attach()
    reading = asyncio.create_task(read(buffer))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_text_from_outside_can_neither_format_nor_control_the_page() -> None:
    hostile = "\x1b[31m<script>alert(1)</script>\r\n\x07<img src=x onerror=alert(2)>\x1b[0m\ud800"
    buffer = ProgressBuffer()
    buffer.report(event("first"))
    buffer.report(event(hostile))
    buffer.report(printed(hostile + "\n"))
    buffer.close(complete=True)
    shown = [shown async for shown in buffer.read()][-1]
    assert shown["message"] == "<script>alert(1)</script> <img src=x onerror=alert(2)>\ufffd"
    page = Page(shown["html_message"])
    assert page.tags == ["span", "pre"]
    assert page.text["span"].strip() == shown["message"]
    assert page.text["pre"].strip().splitlines() == [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(2)>\ufffd",
    ]


async def test_the_last_lines_that_tools_printed_are_shown_with_the_last_step() -> None:
    first, last = await shown_of(
        event("one"), *(printed(f"line {number}\n") for number in range(100)), event("two"), printed("half")
    )
    assert "pre" not in Page(first["html_message"]).tags
    lines = [f"line {number}" for number in range(93, 100)]
    assert Page(last["html_message"]).text["pre"].strip().splitlines() == [*lines, "half"]


async def test_an_event_is_small_whatever_was_printed() -> None:
    (shown,) = await shown_of(event("x" * 100_000), printed("<" * 10_000_000), printed("&\n" * 1_000_000))
    assert len(shown["html_message"]) < 20_000
    (shown,) = await shown_of(event("one"), *(printed("<" * 10_000 + "\n") for _ in range(20)))
    assert len(shown["html_message"]) < 20_000


async def test_the_pages_script_comes_once_to_each_reader_and_holds_nothing_of_the_build() -> None:
    shown = await shown_of(event("one </script>"), event("two"), printed("three\n"))
    assert [Page(one["html_message"]).tags.count("script") for one in shown] == [1, 0]
    (other, _) = await shown_of(event("other"), event("two"))
    assert Page(shown[0]["html_message"]).text["script"] == Page(other["html_message"]).text["script"]


async def test_a_late_reader_sees_the_bar_where_all_others_see_it() -> None:
    """A reload does not take the bar back to the beginning."""
    shown = await shown_of(event("one"), event("two", Phase.PREPARING), event("three", Phase.PREPARING, 1, 2))
    assert len({one["progress"] for one in shown}) == 1
    assert shown[-1]["message"] == "three: 1 of 2"


async def test_an_estimate_is_said_and_moves_the_bar_without_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_TICK_SECONDS", 0)
    clock = Clock()
    buffer = ProgressBuffer(clock=clock)
    buffer.attach()
    buffer.report(BuildEvent(phase=Phase.WAITING, message="Second in the queue", estimate_seconds=20))
    watching = buffer.read()
    assert (await anext(watching))["message"] == "Second in the queue"
    clock.seconds += 500
    buffer.report(event("Downloading", Phase.DOWNLOADING))
    began = await anext(watching)
    assert began["message"] == "Downloading (about 20 s left)"
    clock.seconds += 11
    later = await anext(watching)
    assert later["message"] == "Downloading (about 10 s left)"
    assert began["progress"] + 35 < later["progress"] < 60
    clock.seconds += 50
    assert (await anext(watching))["message"] == "Downloading (takes longer than usual)"
    buffer.close(complete=True)


async def test_who_comes_to_a_build_that_goes_on_sees_what_is_left_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate counts from when the build began, whoever is told of it later."""
    monkeypatch.setattr(progress, "_TICK_SECONDS", 0)
    clock, shared = Clock(), SharedTasks[None](now=lambda: clock.seconds)
    go = asyncio.Event()

    async def build(report: Report) -> None:
        report(BuildEvent(phase=Phase.WAITING, message="Like environments took about 60 s", estimate_seconds=60))
        report(event("Downloading", Phase.DOWNLOADING, 1, 9_000_000))
        await go.wait()

    async def downloading(buffer: ProgressBuffer) -> ProgressEvent:
        async for shown in buffer.read():
            if shown["message"].startswith("Downloading"):
                return shown
        raise AssertionError("it was never said")

    early, late = ProgressBuffer(clock=clock), ProgressBuffer(clock=clock)
    for buffer in (early, late):
        buffer.attach()
    starts = [asyncio.create_task(shared.run("one", build, report=early.report))]
    assert (await downloading(early))["message"].endswith("(about 60 s left)")
    clock.seconds += 40
    late.report(event("Choosing versions", Phase.RESOLVING))
    starts.append(asyncio.create_task(shared.run("one", build, report=late.report)))
    of_late, of_early = await downloading(late), await downloading(early)
    assert of_late["message"] == of_early["message"] == "Downloading: 0.0 of 9.0 MB (about 20 s left)"
    assert abs(of_late["progress"] - of_early["progress"]) < 8
    go.set()
    await asyncio.gather(*starts)


@given(
    st.lists(
        st.tuples(
            st.builds(
                BuildEvent,
                phase=st.sampled_from(Phase),
                age_seconds=st.floats(0, 10_000),
                done=st.integers(-5, 50),
                total=st.integers(0, 20),
                estimate_seconds=st.sampled_from([0, 0, 0.01, 20, 3600]),
            ),
            st.floats(0, 10_000),
        )
    )
)
def test_the_bar_never_goes_back_and_stays_below_the_servers_own_part(steps: list[tuple[BuildEvent, float]]) -> None:
    bar, now, before = Bar(), 0.0, 1
    for one, passed in steps:
        bar.take(one, now - one.age_seconds)
        assert before <= bar.percent(now) <= STARTING_PERCENT
        now += passed
        assert bar.percent(now) >= before
        before = bar.percent(now)


def test_each_phase_has_its_share() -> None:
    bar, lengths = Bar(), []
    for phase in Phase:
        for done in (0, 10):
            bar.take(event("", phase, done, 10), 0)
            lengths.append(bar.percent(0))
    assert lengths == [1, 5, 5, 15, 15, 15, 15, 45, 45, 65, 65, 80, 80, 88, 90, 90]


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
