"""Bases that hang, babble or never come, on a real engine: they harm nobody else, and leave nothing behind."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator

import pytest

from prebuilt_spawner.adapters.docker_bases import BaseLimits
from prebuilt_spawner.environment.base import BaseImage
from prebuilt_spawner.errors import BaseImageUnavailable, MalformedRequest
from prebuilt_spawner.hub.container import CONTAINER_LABEL, PROFILE_LABEL
from prebuilt_spawner.image import names

from .engine_worlds import REQUIRED, TEST_BASE, DockerWorld
from .test_engine import until

pytestmark = pytest.mark.skipif(not TEST_BASE and not REQUIRED, reason="the double runs no bases")

MANY = 10
"""More than the pool of quick calls has threads."""


@pytest.fixture
def world(docker_engine_world) -> DockerWorld:
    return docker_engine_world


async def hanging(world: DockerWorld, *, tag: str = "hangs") -> BaseImage:
    return await world.engine.resolve_base(world.own_base(tag=tag, python3="exec sleep 600"))


async def left(tasks: list[asyncio.Task]) -> None:
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError] * len(tasks)


# -- probes ------------------------------------------------------------------------------------------------------------


async def test_bases_that_hang_delay_no_other_and_leave_no_container_once_nobody_waits(world):
    bases = [await hanging(world, tag=f"hangs-{number}") for number in range(MANY)]
    tasks = [asyncio.ensure_future(world.engine.probe(base)) for base in bases]
    await until(lambda: world.probing(bases, running=True) == MANY)
    good = await asyncio.wait_for(world.engine.resolve_base(world.base), 5)
    assert (await asyncio.wait_for(world.engine.probe(good), 30)).implementation == "cpython"
    await left(tasks)
    await until(lambda: world.probing(bases) == 0)


async def test_many_who_wait_for_a_base_that_hangs_share_a_container_until_the_last_one_leaves(world):
    base = await hanging(world)
    tasks = [asyncio.ensure_future(world.engine.probe(base)) for _ in range(4)]
    await until(lambda: world.probing([base], running=True) == 1)
    await left(tasks[1:])
    await world.engine.resolve_base(world.base)
    assert world.probing([base], running=True) == 1
    await left(tasks[:1])
    await until(lambda: world.probing([base]) == 0)


async def test_closing_while_a_base_hangs_is_quick_and_leaves_no_container(world):
    base = await hanging(world)
    task = asyncio.ensure_future(world.engine.probe(base))
    await until(lambda: world.probing([base], running=True) == 1)
    await asyncio.wait_for(world.engine.close(), 5)
    assert world.probing([base]) == 0
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_base_that_does_not_answer_in_time_is_named_and_leaves_no_container(world):
    base = await hanging(world)
    engine = world.limited(BaseLimits(probe_seconds=0.5))
    with pytest.raises(BaseImageUnavailable) as caught:
        await engine.probe(base)
    assert base.reference in caught.value.message
    assert world.probing([base]) == 0


@pytest.mark.parametrize(
    ("python3", "detail"),
    [
        pytest.param("head -c 1500000 /dev/zero | tr '\\0' x", "more than 1000000 bytes", id="more than the limit"),
        pytest.param("echo '{'; head -c 2500000 /dev/zero | tr '\\0' x", "", id="more than the log keeps"),
        pytest.param("head -c 900000 /dev/zero | tr '\\0' '['", "recursion", id="deeper than a parser goes"),
        pytest.param("echo '[]'", "[]", id="no report"),
        pytest.param("echo hello", "hello", id="no JSON"),
        pytest.param("true", "", id="nothing"),
        pytest.param("echo some words >&2; exit 3", "exit status 3: some words", id="a failure"),
    ],
)
async def test_a_base_whose_answer_is_of_no_use_is_named_and_leaves_no_container(world, python3, detail):
    base = await world.engine.resolve_base(world.own_base(python3=python3))
    engine = world.limited(BaseLimits(probe_output_bytes=1_000_000))
    with pytest.raises(BaseImageUnavailable) as caught:
        await engine.probe(base)
    assert base.reference in caught.value.message
    assert detail in caught.value.detail
    assert len(caught.value.detail) < 10_000
    assert world.probing([base]) == 0


async def test_a_base_that_was_probed_is_known_to_a_hub_that_has_just_started(world):
    base = await world.engine.resolve_base(world.base)
    probe = await world.engine.probe(base)
    assert await world.limited(BaseLimits()).known_base(world.base) == (base, probe)


# -- pulls -------------------------------------------------------------------------------------------------------------


class SilentRegistry:
    """A registry that takes connections and never answers."""

    def __init__(self) -> None:
        self.taken = 0
        self.open = 0
        self._done = asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.reference = f"localhost:{self._server.sockets[0].getsockname()[1]}/silent/base:1"

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken, self.open = self.taken + 1, self.open + 1
        closed = asyncio.ensure_future(reader.read())
        done = asyncio.ensure_future(self._done.wait())
        await asyncio.wait([closed, done], return_when=asyncio.FIRST_COMPLETED)
        for task in (closed, done):
            task.cancel()
        self.open -= 1
        writer.close()

    async def close(self) -> None:
        self._done.set()
        self._server.close()
        await until(lambda: self.open == 0)


@pytest.fixture
async def registry() -> AsyncIterator[SilentRegistry]:
    registry = SilentRegistry()
    await registry.start()
    yield registry
    await registry.close()


async def test_a_registry_that_is_silent_is_asked_once_and_delays_no_other_base(world, registry):
    tasks = [asyncio.ensure_future(world.engine.resolve_base(registry.reference)) for _ in range(MANY)]
    await until(lambda: registry.taken)
    assert (await asyncio.wait_for(world.engine.resolve_base(world.base), 5)).reference == world.base
    assert registry.taken == 1
    await left(tasks)
    await registry.close()


async def test_a_registry_that_stays_silent_is_given_up_by_us_and_by_the_engine(world, registry):
    engine = world.limited(BaseLimits(pull_silence_seconds=0.5))
    with pytest.raises(BaseImageUnavailable) as caught:
        await engine.resolve_base(registry.reference)
    assert registry.reference in caught.value.message
    await until(lambda: registry.taken and registry.open == 0)


async def test_what_is_still_pulled_does_not_keep_the_process_from_ending(world, registry, tmp_path):
    program = f"""
import asyncio, pathlib
from prebuilt_spawner.adapters.docker_engine import DockerEngine

async def main():
    engine = DockerEngine(repository="{world.repository}", cache_dir=pathlib.Path("{tmp_path}"))
    task = asyncio.ensure_future(engine.resolve_base("{registry.reference}"))
    await asyncio.get_running_loop().run_in_executor(None, input)
    task.cancel()

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE)
    await until(lambda: registry.taken)
    started = time.monotonic()
    await asyncio.wait_for(process.communicate(b"\n"), 10)
    assert process.returncode == 0
    assert time.monotonic() - started < 5


async def test_closing_cuts_a_pull_short(world, registry):
    engine = world.limited(BaseLimits(pull_silence_seconds=1))
    task = asyncio.ensure_future(engine.resolve_base(registry.reference))
    await until(lambda: registry.taken)
    await asyncio.wait_for(engine.close(), 8)
    with pytest.raises(asyncio.CancelledError):
        await task


# -- holds of processes that were killed -------------------------------------------------------------------------------


async def test_names_that_killed_processes_held_bases_with_go_after_a_day_and_no_other_name_does(world):
    base = await world.engine.resolve_base(world.base)
    now = int(time.time())
    of_yesterday, of_this_hour = (
        f"{world.repository}:hold-{'0' * 16}-{made:08x}-{'1' * 8}" for made in (now - 25 * 3600, now - 3600)
    )
    others = [f"{world.repository}:{tag}" for tag in ("latest", "f" * 64, "hold-me", f"hold-{'0' * 16}-{'1' * 8}")]
    elsewhere = of_yesterday.replace("/env:", "/env-of-others:")
    for name in (of_yesterday, of_this_hour, elsewhere, *others):
        world.name(base.image_id, name)
    async with world.engine.hold(base.image_id):
        assert world.bystanders() >= {of_this_hour, elsewhere, *others}
        assert of_yesterday not in world.bystanders()


# -- bases that pass for what is ours ----------------------------------------------------------------------------------


def test_our_labels_are_all_that_the_package_gives() -> None:
    given = {value for name, value in vars(names).items() if name.endswith("_LABEL")}
    assert given | {CONTAINER_LABEL, PROFILE_LABEL} == names.OURS


@pytest.mark.parametrize("label", sorted(names.OURS))
async def test_a_base_that_was_published_with_a_label_of_ours_is_refused(world: DockerWorld, label: str) -> None:
    """By name and by ID; and it is found as no environment, whatever digest it claims."""
    claimed = "c" * 64
    name = world.own_base(tag="forged", changes=[f"LABEL {label}={claimed}"])
    found = world.inspect(name)
    for reference in (name, found["Id"], found["Id"].removeprefix("sha256:")[:12]):
        with pytest.raises(MalformedRequest) as caught:
            await world.engine.resolve_base(reference)
        assert label in caught.value.detail
        assert await world.engine.known_base(reference) is None
    assert await world.engine.find(f"{world.repository}:{claimed}") is None
