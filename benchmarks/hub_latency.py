"""How a hub answers while many users start their servers at once: idle, with plain DockerSpawner, and with ours.

    PREBUILT_SPAWNER_TEST_BASE=<what `make setup` printed> PYTHONPATH=.:dev python -m benchmarks.hub_latency

Real hubs with their real proxies on the engine that the environment names; the servers are light. The same users start
in each case, and the cases take turns. Measured are how late the hub's event loop comes to a timer, in its own process,
and how long `/hub/api/` takes to answer, from outside. JupyterHub itself holds its loop while it takes many requests in
that come at the same time, whatever the spawner does: what comes after the last of them was taken in has a column of
its own. All that this makes is removed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker
import jupyterhub
import requests

from tests.engine.hub import TEST_LABEL, Hub, clean_up, remove_containers
from tests.engine.light import make_light_base

from .loop_monitor import delays

IDLE_SECONDS = 5

_SETTINGS = """
c.JupyterHub.concurrent_spawn_limit = 0
# JupyterHub answers each request as soon as it has taken it in.
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}
# DockerSpawner has one thread for all containers, and JupyterHub counts the wait for it as the container's start.
c.Spawner.start_timeout = c.PrebuiltSpawner.start_timeout = 600
# Each hub makes its environment anew.
c.PrebuiltSpawner.repository = "prebuilt-spawner-test/{run}-{name}"
from benchmarks.loop_monitor import start
start("{folder}/loop")
"""
_PLAIN = """
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.image = "{base}"
c.DockerSpawner.remove = True
c.DockerSpawner.extra_create_kwargs = {{"labels": {{"{label}": "{run}"}}}}
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One case of one round.

    Attributes:
        seconds: How long all of it took.
        loop: How late the event loop was, in seconds, each time.
        loop_after: The same after all requests were taken in.
        answers: How long an answer took, in seconds, each time.
    """

    seconds: float
    loop: list[float]
    loop_after: list[float]
    answers: list[float]


def measured(hub: Hub, act: Callable[[], float]) -> Measured:
    """What the hub does meanwhile. `act` returns when the last request was taken in."""
    answers: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not stop.wait(0.02):
                begun = time.monotonic()
                session.get(f"{hub.url}/hub/api/", timeout=60).raise_for_status()
                answers.append(time.monotonic() - begun)

    thread = threading.Thread(target=ask)
    begun = time.monotonic()
    thread.start()
    try:
        taken_in = act()
    finally:
        ended = time.monotonic()
        stop.set()
        thread.join()
    loop = hub.folder / "loop"
    return Measured(
        seconds=ended - begun,
        loop=delays(loop, begun, ended),
        loop_after=delays(loop, taken_in, ended),
        answers=answers,
    )


def idle() -> float:
    """Nothing happens."""
    begun = time.monotonic()
    time.sleep(IDLE_SECONDS)
    return begun


def start_all(hub: Hub, users: list[str], options: dict[str, list[str]]) -> float:
    """All start their servers at once, and get them; returns when the last request was taken in."""
    body = hub.options_body(options) if options else {}

    def start(user: str) -> float:
        answer = hub.api("POST", hub.server_path(user), body)
        assert answer.status in (201, 202), answer
        taken_in = time.monotonic()
        *_, last = hub.progress(user)
        assert last.get("ready"), last
        return taken_in

    with ThreadPoolExecutor(len(users)) as threads:
        return max(threads.map(start, users))


class Bench:
    """Hubs of one run, one after the other, on one base."""

    def __init__(self, client: docker.APIClient, run: str, folder: Path, *, users: int, packages: list[str]) -> None:
        self._client = client
        self._run = run
        self._folder = folder
        self._users = users
        self._options = {"packages": packages}
        self._base = make_light_base(client, os.environ["PREBUILT_SPAWNER_TEST_BASE"], run)

    def plain(self) -> dict[str, Measured]:
        """DockerSpawner as it is, on an image that is there."""
        with self._hub(_PLAIN.format(base=self._base, label=TEST_LABEL, run=self._run)) as (hub, users):
            waiting = measured(hub, idle)
            return {"idle": waiting, "plain DockerSpawner": measured(hub, lambda: start_all(hub, users, {}))}

    def ours(self) -> dict[str, Measured]:
        """An environment that nobody had, then the same again."""
        with self._hub("") as (hub, users):
            found = {}
            for case in ("new environment", "ready image"):
                found[f"ours, {case}"] = measured(hub, lambda: start_all(hub, users, self._options))
                for user in users:
                    hub.stop_server(user)
                remove_containers(self._client, self._run)
            assert hub.ledger("SELECT outcome FROM builds") == [("done",)], "one build, in the first case"
            return found

    @contextlib.contextmanager
    def _hub(self, settings: str) -> Iterator[tuple[Hub, list[str]]]:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        hub = Hub(
            folder=folder,
            run=self._run,
            base=self._base,
            client=self._client,
            cache_dir=folder / "cache",
            settings=_SETTINGS.format(folder=folder, run=self._run, name=secrets.token_hex(4)) + settings,
        )
        try:
            hub.start()
            users = [hub.user(f"user{number}") for number in range(self._users)]
            time.sleep(2)
            yield hub, users
        finally:
            hub.stop()
            remove_containers(self._client, self._run)


def table(rounds: list[dict[str, Measured]]) -> str:
    """Milliseconds, in Markdown: of p50 and p99 the median of all rounds, of the worst each round's."""
    head = ("case", "took", *(f"{what} {part}" for what in ("loop", "answer") for part in ("p50", "p99", "worst")))
    lines = [f"| {' | '.join((*head, 'loop worst after'))} |", f"|{' --- |' * (len(head) + 1)}"]
    for case in rounds[0]:
        of_all = [each[case] for each in rounds]
        cells = [case, f"{statistics.median(each.seconds for each in of_all):.1f} s"]
        for series in ([each.loop for each in of_all], [each.answers for each in of_all]):
            cells += [f"{statistics.median(1000 * part(values) for values in series):.1f}" for part in (_p50, _p99)]
            cells.append(_each(series))
        cells.append(_each([each.loop_after for each in of_all]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _p50(values: list[float]) -> float:
    return statistics.median(values)


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _each(series: list[list[float]]) -> str:
    return ", ".join(f"{1000 * max(values):.0f}" for values in series)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, default=30, help="how many start at once")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is measured")
    parser.add_argument("--packages", nargs="+", default=["pandas", "scikit-learn", "matplotlib"])
    arguments = parser.parse_args()
    client = docker.APIClient(**docker.utils.kwargs_from_env(), version="auto", timeout=120)
    run = "b" + secrets.token_hex(4)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            bench = Bench(client, run, Path(folder), users=arguments.users, packages=arguments.packages)
            for number in range(arguments.rounds):
                rounds.append(bench.plain() | bench.ours())
                print(f"round {number + 1}: load average {os.getloadavg()[0]:.1f}", flush=True)
        finally:
            clean_up(client, run)
            client.close()
    print(
        f"\n{arguments.users} users at once, {' '.join(arguments.packages)}; JupyterHub {jupyterhub.__version__}, "
        f"{os.cpu_count()} processors; milliseconds\n\n{table(rounds)}"
    )


if __name__ == "__main__":
    main()
