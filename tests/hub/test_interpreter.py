"""The event loop of a hub comes before the threads of its builds."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator

import pytest

from prebuilt_spawner.hub.interpreter import SWITCH_SECONDS, favour_event_loop
from prebuilt_spawner.hub.startup import check_at_hub_start

from .doubles import Hub


@pytest.fixture(autouse=True)
def interpreter() -> Iterator[None]:
    """As CPython starts, and afterwards as it was."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    gc.unfreeze()
    yield
    sys.setswitchinterval(before)


async def frozen() -> None:
    while not gc.get_freeze_count():
        await asyncio.sleep(0.01)


async def test_a_hub_that_starts_will_wait_little_for_threads_and_for_garbage(hub: Hub) -> None:
    """What is loaded is not looked through again, and a thread gives the interpreter back in half a millisecond."""
    check_at_hub_start()
    factory = hub.app.session_factory
    hub.app.session_factory = lambda: factory()  # as JupyterHub does it before all else
    await asyncio.wait_for(frozen(), 30)
    assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS, rel=0.1)


def test_what_is_there_later_can_still_be_garbage() -> None:
    """Only the first call counts: else each would keep for ever what is there by then."""
    favour_event_loop()
    count = gc.get_freeze_count()
    later = [[] for _ in range(1000)]
    favour_event_loop()
    assert gc.get_freeze_count() <= count
    assert later


def test_an_interpreter_that_switches_oftener_is_left_as_it_is() -> None:
    sys.setswitchinterval(0.0001)
    favour_event_loop()
    assert sys.getswitchinterval() == pytest.approx(0.0001, rel=0.1)
