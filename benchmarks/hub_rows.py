"""Rows with whole hubs, their proxies and light servers: what a start costs, and how late the event loop is."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from tests.engine.hub import TEST_LABEL, Hub, clean_up, remove_containers
from tests.engine.light import make_light_base

from . import workloads
from .bench import Bench
from .crowd_rows import SAME_LIST, SAME_USERS
from .hub_latency import Measured, idle, measured
from .results import OURS, Row, Sample, Target
from .threads import in_thread

PLAIN = "(d) plain DockerSpawner"
IDLE = "the idle hub"
LIST = ("tabulate", "more-itertools")
REORDERED = ("More_Itertools", "TABULATE")
_STARTS = 4
"""How many starts one repetition has, since one takes a fraction of a second."""

_SETTINGS = """
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}
c.Spawner.start_timeout = c.PrebuiltSpawner.start_timeout = 600
c.PrebuiltSpawner.repository = "prebuilt-spawner-test/{run}"
c.PrebuiltSpawner.index_url = "{index}"
c.PrebuiltSpawner.remove = True
from benchmarks.loop_monitor import start
start("{folder}/loop")
"""
_PLAIN_SETTINGS = """
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.image = "{base}"
c.DockerSpawner.remove = True
c.DockerSpawner.extra_create_kwargs = {{"labels": {{"{label}": "{run}"}}}}
"""


async def ready_images(bench: Bench) -> Row:
    """B0 and B9: from the request until the container is created, where the image is there."""
    row = bench.row(
        "B0",
        "A list whose image is there, and the same reordered and differently cased (B9), until a container is created",
        "Warm: everything. The servers are light",
        targets=(
            Target(against=PLAIN, at_most=0.020, of="difference"),
            Target(against=PLAIN, at_most=0.020, of="difference", contestant=_AGAIN),
        ),
    )
    await in_thread(_ready_images, bench, row)
    return row


_AGAIN = f"{OURS}, B9"


def _ready_images(bench: Bench, row: Row) -> None:
    with _hubs(bench) as hub_of, hub_of(plain=True) as plain, hub_of() as ours:
        users = {hub: hub.user("ready") for hub in (plain, ours)}
        _seconds_until_created(plain, users[plain], {})
        _seconds_until_created(ours, users[ours], {"packages": list(LIST)})
        for _ in range(_STARTS * bench.repetitions):
            row.add(OURS, Sample(value=_seconds_until_created(ours, users[ours], {"packages": list(LIST)})))
            row.add(PLAIN, Sample(value=_seconds_until_created(plain, users[plain], {})))
            row.add(_AGAIN, Sample(value=_seconds_until_created(ours, users[ours], {"packages": list(REORDERED)})))
        builds = ours.ledger("SELECT count(*) FROM builds")[0][0]
    if builds != 1:
        row.samples[_AGAIN] = [Sample(value=0, flaw=f"{builds} builds ran instead of one")]
    bench.tell("B0: " + ", ".join(f"{name} {row.median(name)}" for name in row.samples))


def _seconds_until_created(hub: Hub, user: str, options: dict[str, list[str]]) -> float:
    """Start a server, see when the engine says that its container was created, and take it away again."""
    begun = time.time()
    outcome = hub.start_server(user, options)
    if not outcome.ready:
        raise RuntimeError(f"a server did not start: {outcome.message}")
    containers = hub.client.containers(all=True, filters={"label": f"{TEST_LABEL}={hub.run}", "status": "running"})
    created = [hub.client.inspect_container(each["Id"])["Created"] for each in containers]
    hub.stop_server(user)
    # The engine's nanoseconds are more than `datetime` knows.
    times = [datetime.fromisoformat(each[:26].rstrip("Z") + "+00:00").timestamp() for each in created]
    return max(times) - begun


async def event_loop(bench: Bench) -> Row:
    """How late a hub's event loop comes to a timer while W1 is made, twenty want one list, and eight want eight."""
    row = bench.row(
        "loop",
        f"The worst delay of a hub's event loop: W1 (B2), {SAME_USERS} users of one list (B7), eight of eight (B8)",
        "Cold: wheels, caches, the lists. The servers are light",
        unit="ms",
        targets=tuple(
            Target(against="", at_most=100.0, of="value", contestant=f"{OURS}, {case}") for case in ("B2", "B7", "B8")
        ),
    )
    await in_thread(_event_loop, bench, row)
    return row


def _event_loop(bench: Bench, row: Row) -> None:
    cases: dict[str, Sequence[Sequence[str]]] = {
        "B2": [workloads.W1],
        "B7": [SAME_LIST] * SAME_USERS,
        "B8": list(workloads.DIFFERENT),
    }
    with _hubs(bench) as hub_of:
        for case, lists in cases.items():
            for _ in range(bench.repetitions):
                with hub_of() as hub:
                    starting = _starting(hub, lists)
                    _add(bench, row, IDLE, measured(hub, idle))
                    _add(bench, row, f"{OURS}, {case}", measured(hub, starting))
                if len(lists) > 1:
                    # What JupyterHub itself does for so many users at once.
                    with hub_of(plain=True) as hub:
                        _add(bench, row, f"{PLAIN}, {case}", measured(hub, _starting(hub, [()] * len(lists))))


def _starting(hub: Hub, lists: Sequence[Sequence[str]]) -> Callable[[], float]:
    """New users, one for each list, who start at once when it is called, and get their servers."""

    def start(user: str, packages: Sequence[str]) -> float:
        body = hub.options_body({"packages": list(packages)}) if packages else {}
        answer = hub.api("POST", hub.server_path(user), body)
        if answer.status not in (201, 202):
            raise RuntimeError(f"a server did not start: {answer}")
        taken_in = time.monotonic()
        *_, last = hub.progress(user)
        if not last.get("ready"):
            raise RuntimeError(f"a server did not start: {last}")
        return taken_in

    users = [hub.user(f"user{number}") for number in range(len(lists))]

    def act() -> float:
        with ThreadPoolExecutor(len(users)) as threads:
            return max(threads.map(start, users, lists))

    return act


def _add(bench: Bench, row: Row, name: str, found: Measured) -> None:
    delays = sorted(1000 * delay for delay in found.loop)
    row.add(name, Sample(value=delays[-1]))
    p50, p99 = delays[len(delays) // 2], delays[int(len(delays) * 0.99)]
    after = 1000 * max(found.loop_after, default=0)
    row.remarks.append(
        f"{name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {delays[-1]:.0f} ms; "
        f"worst after the requests were taken in {after:.0f} ms"
    )
    bench.tell(f"{row.key} {row.remarks[-1]}")


@contextlib.contextmanager
def _hubs(bench: Bench) -> Iterator[Callable[..., contextlib.AbstractContextManager[Hub]]]:
    """Makes hubs of this run, which run while they are entered; all that they made goes at the end."""
    client, run = bench.engine.client, bench.engine.run
    base = make_light_base(client, bench.engine.base, run)

    @contextlib.contextmanager
    def hub_of(*, plain: bool = False) -> Iterator[Hub]:
        folder = Path(tempfile.mkdtemp(dir=bench.folder))
        word = bench.word("hub")
        settings = _SETTINGS.format(folder=folder, run=f"{run}-{word}", index=bench.mirror.index_url(word))
        if plain:
            settings += _PLAIN_SETTINGS.format(base=base, label=TEST_LABEL, run=run)
        hub = Hub(folder=folder, run=run, base=base, client=client, cache_dir=folder / "cache", settings=settings)
        try:
            hub.start()
            yield hub
        finally:
            hub.stop()
            remove_containers(client, run)

    try:
        yield hub_of
    finally:
        # Of the client that the run goes on to use.
        clean_up(client, run)
