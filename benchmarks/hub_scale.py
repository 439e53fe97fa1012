"""A hub with many users: what its processor time, memory and event loop do as users and environments become more.

    PYTHONPATH=.:dev python -m benchmarks.hub_scale --users 50 100 250 500 --environments 1 100 1000 10000

JupyterHub, the spawner, the build manager and the ledger (SQLite, on disk) are real. Simulated, in memory, are
containers and their servers, the engine, the resolver, wheels and the proxy: nothing is downloaded, packed or run, so
that what is left is what the hub's own process does. So many users arrive evenly within a minute, each wants one of a
hundred environments that nobody has made yet, and gets a server. They are a process of their own. The second table is
of a hundred users in a hub whose ledger remembers that many environments already. Each line is a hub of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import os
import resource
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jupyterhub

from prebuilt_spawner.adapters.memory import MemoryEngine, MemoryResolver, MemoryWheelStore
from prebuilt_spawner.build.events import Report
from prebuilt_spawner.build.locking import Locksmith
from prebuilt_spawner.build.manager import BuildManager
from prebuilt_spawner.build.provider import Environment, EnvironmentRequest, Provider
from prebuilt_spawner.environment.base import BaseImage
from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.ledger import SqlLedger
from tests.hub import doubles

from .loop_monitor import delays
from .loop_monitor import start as start_monitor

BASE = "example/base:1"
ENVIRONMENTS = 100
_THREADS = 64


class SimulatedManager(BuildManager):
    """A real one whose images also exist for the simulated engine that the spawner speaks to."""

    containers: doubles.FakeDocker

    async def ensure(self, request: EnvironmentRequest, *, report: Report) -> Environment:
        """See `BuildManager.ensure`."""
        environment = await super().ensure(request, report=report)
        self.containers.images[environment.image] = f"sha256:{environment.digest}"
        return environment


async def simulated(folder: Path, containers: doubles.FakeDocker, *, remembered: int) -> SimulatedManager:
    """A manager over doubles, whose ledger has so many environments of others."""
    engine, store, resolver = MemoryEngine(), MemoryWheelStore(), MemoryResolver()
    base = BaseImage(
        reference=BASE,
        image_id="sha256:" + "0" * 64,
        digest="0" * 64,
        diff_ids=("sha256:" + "1" * 64,),
        config={},
        os="linux",
        architecture="amd64",
    )
    engine.add_base(base, doubles._PROBE)
    for number in range(ENVIRONMENTS):
        resolver.publish(f"package-{number}", "1.0")
    ledger = SqlLedger(f"sqlite:///{folder}/ledger.sqlite")
    await ledger.open()
    for number in range(remembered):
        digest = hashlib.sha256(f"environment {number}".encode()).hexdigest()
        wheels = tuple(_wheel(f"other-{number % 500}-{other}") for other in range(5))
        await ledger.record_environment(digest=digest, base_digest=base.digest, lock=Lock(wheels=wheels), size_bytes=1)
    manager = SimulatedManager(
        engine=engine,
        wheel_store=store,
        ledger=ledger,
        history=ledger,
        locksmith=Locksmith(ledger, resolver),
        provider=Provider(engine=engine, wheel_store=store, ledger=ledger, repository=doubles.REPOSITORY),
    )
    manager.containers = containers
    return manager


def _wheel(name: str) -> LockedWheel:
    filename = f"{name}-1-py3-none-any.whl"
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    return LockedWheel(
        name=name, version="1", filename=filename, url=f"https://example.org/{filename}", sha256=sha256, size_bytes=999
    )


async def measured(*, users: int, seconds: float, remembered: int) -> dict[str, float]:
    """One hub: what its process did while the users arrived."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {"db_url": f"sqlite:///{folder}/unused.sqlite"}
        async with asynccontextmanager(doubles.run_hub)(settings=settings) as hub:
            manager = await simulated(folder, hub.docker, remembered=remembered)

            async def the_manager(self: Any) -> BuildManager:
                return manager

            hub.spawner_class._new_manager = the_manager
            hub.app.concurrent_spawn_limit = 0
            start_monitor(str(folder / "loop"))
            await asyncio.sleep(1)
            begun, processor = time.monotonic(), time.process_time()
            client = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.hub_scale", "--client", hub.api, f"{users}", f"{seconds}"),
                stdout=asyncio.subprocess.PIPE,
            )
            printed, _ = await client.communicate()
            ended, processor = time.monotonic(), time.process_time() - processor
            await manager.close()
            waits = json.loads(printed)
            if len(waits) != users:
                raise RuntimeError(f"only {len(waits)} of {users} users got a server")
            late = sorted(1000 * delay for delay in delays(folder / "loop", begun, ended))
    return {
        "CPU": 100 * processor / (ended - begun),
        "CPU per start, ms": 1000 * processor / users,
        "RSS, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loop p50, ms": statistics.median(late),
        "loop p99, ms": late[int(len(late) * 0.99)],
        "loop worst, ms": late[-1],
        "a start, ms": 1000 * statistics.median(waits),
        "slowest start, ms": 1000 * max(waits),
    }


def arrive(api: str, users: int, seconds: float) -> list[float]:
    """Users who start a server each, evenly within this time: how long each waited."""
    begun = time.monotonic()
    headers = {"Authorization": f"token {doubles.ADMIN_TOKEN}", "Content-Type": "application/json"}

    def post(path: str, body: object = None) -> int:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{api}{path}", data=content or b"", headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=120) as answer:
            return int(answer.status)

    def start(number: int) -> float | None:
        time.sleep(max(0.0, begun + seconds * number / users - time.monotonic()))
        options = {"packages": [f"package-{number % ENVIRONMENTS}"]}
        came = time.monotonic()
        post(f"/users/user{number}")
        body = options if jupyterhub.version_info[0] < 6 else {"user_options": options}
        status = post(f"/users/user{number}/server", body)
        return time.monotonic() - came if status == 201 else None

    with ThreadPoolExecutor(_THREADS) as threads:
        return [wait for wait in threads.map(start, range(users)) if wait is not None]


def _child(arguments: Sequence[str]) -> dict[str, float]:
    """Measured in a process of its own, whose memory nobody else has used."""
    import subprocess

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hub_scale", "--one", *arguments], check=True, stdout=subprocess.PIPE
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, and print the two tables."""
    if sys.argv[1:2] == ["--client"]:
        print(json.dumps(arrive(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
        return
    if sys.argv[1:2] == ["--one"]:
        users, seconds, remembered = sys.argv[2:5]
        logging.disable(logging.INFO)  # the doubles' hub tells everything
        with contextlib.redirect_stdout(sys.stderr):
            found = asyncio.run(measured(users=int(users), seconds=float(seconds), remembered=int(remembered)))
        print(json.dumps(found))
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=int, nargs="*", default=[50, 100, 250, 500])
    parser.add_argument("--environments", type=int, nargs="*", default=[1, 100, 1000, 10_000])
    parser.add_argument("--seconds", type=float, default=60, help="within which all users arrive")
    given = parser.parse_args()
    print(f"JupyterHub {jupyterhub.__version__}, {os.cpu_count()} processors, load average {os.getloadavg()[0]:.1f}\n")
    lines = [("users", str(count), (count, 0)) for count in given.users]
    lines += [("environments in the ledger", str(count), (100, count)) for count in given.environments]
    head = ""
    for what, label, (users, remembered) in lines:
        found = _child([f"{users}", f"{given.seconds}", f"{remembered}"])
        if what != head:
            head = what
            print(f"\n| {' | '.join((what, *found))} |\n|{' --- |' * (len(found) + 1)}")
        print(f"| {label} | {' | '.join(f'{value:.1f}' for value in found.values())} |", flush=True)


if __name__ == "__main__":
    main()
