"""A spawner whose builds are plays: a package's name says which. For a hub in a process of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prebuilt_spawner import PrebuiltSpawner
from prebuilt_spawner.build.events import BuildEvent, Phase, Report
from prebuilt_spawner.build.preview import Preview, Readiness
from prebuilt_spawner.build.provider import Environment, EnvironmentRequest
from prebuilt_spawner.errors import UnresolvableRequest

SCRIPT = "<script>alert('script')</script><img src=x onerror=alert('image')>"
MEGABYTE = 1_000_000

SETTINGS = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.browser.scripted import ScriptedSpawner
c.JupyterHub.spawner_class = ScriptedSpawner
"""


def hostile() -> Iterator[BuildEvent]:
    """More than 200 MB of all that a tool should not print, and at the end what is to be seen of it."""

    def printed(text: str) -> BuildEvent:
        return BuildEvent(phase=Phase.PREPARING, output=text)

    yield BuildEvent(phase=Phase.PREPARING, message=f"Preparing {SCRIPT}")
    for _ in range(10):
        yield printed("x" * (10 * MEGABYTE))
        yield printed(f"\x1b[31m{SCRIPT}\x1b[0m\n" * 100_000)
        yield printed("\r10%\r20%" * 500_000)
    yield printed(f"\n\x1b[1;31mred\x1b[0m \x1b]0;title\x07{SCRIPT}\n")
    yield printed(" 10%\r 55%\r100%\n")
    yield printed(b"caf\xe9 \xff\xfe\n".decode("utf-8", "surrogateescape"))
    yield printed("\u202etxt.exe\x00\x08\n")
    yield printed("y" * (10 * MEGABYTE))
    yield printed("\nlast ")
    yield printed("words\n")


def counting() -> Iterator[BuildEvent]:
    """A download that is reported much more often than a page can show it."""
    yield BuildEvent(phase=Phase.RESOLVING, message="Choosing package versions", estimate_seconds=60)
    for done in range(0, 101):
        time.sleep(0.03)
        message = "Downloading numpy, pandas, scipy, …"
        yield BuildEvent(phase=Phase.DOWNLOADING, message=message, done=done * MEGABYTE, total=100 * MEGABYTE)
    names = ("numpy", "pandas", "scipy", "matplotlib", "seaborn", "tqdm", "requests")
    for done, name in enumerate(names, 1):
        message = "Preparing packages"
        output = f"\x1b[2mInstalled\x1b[0m {name} in {done * 17} ms\n"
        yield BuildEvent(phase=Phase.PREPARING, message=message, done=done, total=7, output=output)


def failing() -> Iterator[BuildEvent]:
    """A build that fails after it has said something."""
    yield BuildEvent(phase=Phase.RESOLVING, message="Choosing package versions")
    time.sleep(4)  # so that the pending page is there before, also on a busy machine
    yield BuildEvent(phase=Phase.RESOLVING, output=f"no solution for {SCRIPT}\n")


PLAYS = {"hostile": hostile, "counting": counting, "failing": failing}


class ScriptedManager:
    """Plays, and then waits for ever, or fails where the play is `failing`."""

    async def ensure(self, request: EnvironmentRequest, *, report: Report) -> Environment:
        (name,) = request.requirements
        await asyncio.to_thread(lambda: [report(event) for event in PLAYS[name]()] and None)
        if name == "failing":
            raise UnresolvableRequest(f"Nothing fits {SCRIPT}. Ask for something else.")
        await asyncio.Event().wait()
        raise AssertionError

    async def preview(self, requests: Sequence[EnvironmentRequest]) -> Sequence[Preview]:
        return [Preview(readiness=Readiness.UNBUILT)] * len(requests)

    async def recent(self, **_: Any) -> Sequence[Mapping[str, Any]]:
        return ()

    async def close(self) -> None:
        pass


class ScriptedSpawner(PrebuiltSpawner):
    """Builds nothing."""

    async def _new_manager(self) -> Any:
        return ScriptedManager()
