"""How long the spawn form takes: ours with many profiles and a full ledger, and plain DockerSpawner's.

    PREBUILT_SPAWNER_TEST_BASE=<what `make setup` printed> PYTHONPATH=.:dev python -m benchmarks.spawn_form

Real hubs on the engine that the environment names, asked in turns. Ours has profiles of many packages whose locks are
in the ledger, beside environments that others made; plain DockerSpawner has as many images to choose from. What is
measured is the whole page: the first time after the hub's start, in a row, and for many users at once. All that this
makes is removed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import re
import secrets
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker
import requests

from prebuilt_spawner.adapters.docker_engine import DockerEngine
from prebuilt_spawner.build.events import ignore
from prebuilt_spawner.build.interface import ResolveRequest
from prebuilt_spawner.build.locking import Locksmith
from prebuilt_spawner.build.provider import EnvironmentRequest, ProfileRequest
from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.ledger import SqlLedger
from tests.engine.hub import TEST_LABEL, Hub, clean_up

PACKAGES = 50
"""Packages of each profile."""

_OURS = """
c.PrebuiltSpawner.profile_list = [
    {{"display_name": f"Profile {{number}}", "description": "An environment.", "packages": {packages}(number)}}
    for number in range({profiles})
]
"""
_PACKAGES_OF = "(lambda number: [f'package-{number}-{other}' for other in range(%d)])" % PACKAGES  # noqa: UP031
_PLAIN = """
c.JupyterHub.spawner_class = "dockerspawner.DockerSpawner"
c.DockerSpawner.image = "{base}"
c.DockerSpawner.allowed_images = {{f"image-{{number}}": "{base}" for number in range({profiles})}}
"""


def requirements(number: int) -> tuple[str, ...]:
    """What a profile asks for."""
    return tuple(sorted(f"package-{number}-{other}" for other in range(PACKAGES)))


class MadeUpIndex:
    """Has every package."""

    async def resolve(self, request: ResolveRequest) -> Lock:
        """See `Resolver.resolve`."""
        return Lock(wheels=tuple(map(_wheel, request.requirements)))


def _wheel(name: str) -> LockedWheel:
    filename = f"{name.replace('-', '_')}-1-py3-none-any.whl"
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    return LockedWheel(
        name=name, version="1", filename=filename, url=f"https://example.org/{filename}", sha256=sha256, size_bytes=9999
    )


async def fill(hub: Hub, *, profiles: int, environments: int) -> None:
    """Put the locks of all profiles into the hub's ledger, and environments of others."""
    ledger = SqlLedger(f"sqlite:///{hub.folder}/ledger.sqlite")
    await ledger.open()
    engine = DockerEngine(repository=hub.repository, cache_dir=hub.cache_dir, labels={TEST_LABEL: hub.run})
    locksmith = Locksmith(ledger, MadeUpIndex())
    try:
        base = await engine.resolve_base(hub.base)
        probe = await engine.probe(base)
        for number in range(profiles):
            wanted = requirements(number)
            request = EnvironmentRequest(user="", requirements=wanted, base=hub.base, profile=_profile(number, wanted))
            await locksmith.lock_for(request, base, probe, report=ignore)
        for number in range(environments):
            digest = hashlib.sha256(f"environment {number}".encode()).hexdigest()
            lock = Lock(wheels=tuple(_wheel(f"other-{number}-{other}") for other in range(5)))
            await ledger.record_environment(digest=digest, base_digest=base.digest, lock=lock, size_bytes=10**6)
    finally:
        await locksmith.close()
        await engine.close()
        await ledger.close()


def _profile(number: int, wanted: tuple[str, ...]) -> ProfileRequest:
    return ProfileRequest(slug=f"profile-{number}", requirements=wanted)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of each page; `page_bytes` is how long one is."""

    first: float
    next: list[float]
    together: list[float]
    page_bytes: int


def log_in(hub: Hub, user: str) -> requests.Session:
    """A browser of this user's."""
    session = requests.Session()
    page = session.get(f"{hub.url}/hub/login", timeout=60)
    xsrf = re.search(r'name="_xsrf"\s+value="([^"]+)"', page.text)
    assert xsrf is not None
    fields = {"username": user, "password": "password-of-the-tests", "_xsrf": xsrf[1]}
    # Not on to where a logged-in user goes: that may start a server.
    answer = session.post(f"{hub.url}/hub/login", data=fields, timeout=60, allow_redirects=False)
    assert answer.status_code == requests.codes.found, answer.text
    return session


def load(hub: Hub, session: requests.Session, choices: int) -> tuple[float, int]:
    """Seconds and length of the form."""
    begun = time.monotonic()
    page = session.get(f"{hub.url}/hub/spawn", timeout=60)
    seconds = time.monotonic() - begun
    found = page.text.count('type="radio"') or page.text.count("<option")
    assert found == choices, f"{found} choices on the page: {page.status_code}"
    return seconds, len(page.content)


def measured(hub: Hub, *, choices: int, users: int, times: int) -> Measured:
    """The form of one hub that has just started."""
    hub.start()
    try:
        sessions = [log_in(hub, hub.user(f"user{number}")) for number in range(users)]
        first, page_bytes = load(hub, sessions[0], choices)
        following = [load(hub, sessions[0], choices)[0] for _ in range(times)]
        with ThreadPoolExecutor(users) as threads:
            together = list(threads.map(lambda session: load(hub, session, choices)[0], sessions))
    finally:
        hub.stop()
    return Measured(first=first, next=following, together=together, page_bytes=page_bytes)


def row(name: str, rounds: list[Measured]) -> str:
    """A line of the table."""
    following = [seconds for one in rounds for seconds in one.next]
    together = [seconds for one in rounds for seconds in one.together]
    cells = (
        name,
        f"{1000 * statistics.median(one.first for one in rounds):.0f}",
        f"{1000 * statistics.median(following):.0f} ({1000 * min(following):.0f} to {1000 * max(following):.0f})",
        f"{1000 * statistics.median(together):.0f} ({1000 * max(together):.0f})",
        f"{statistics.median(one.page_bytes for one in rounds) / 1000:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--profiles", type=int, default=200, help="how many there are to choose from")
    parser.add_argument("--environments", type=int, default=5000, help="how many others the ledger knows")
    parser.add_argument("--users", type=int, default=40, help="how many load the form at once")
    parser.add_argument("--rounds", type=int, default=3, help="how often each hub is started")
    arguments = parser.parse_args()
    base = os.environ["PREBUILT_SPAWNER_TEST_BASE"]
    client = docker.APIClient(**docker.utils.kwargs_from_env(), version="auto", timeout=120)
    run = "b" + secrets.token_hex(4)
    found: dict[str, list[Measured]] = {"ours": [], "plain DockerSpawner": []}
    settings = {
        "ours": _OURS.format(packages=_PACKAGES_OF, profiles=arguments.profiles),
        "plain DockerSpawner": _PLAIN.format(base=base, profiles=arguments.profiles),
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            hubs = {}
            for number, (name, text) in enumerate(settings.items()):
                place = Path(folder, str(number))
                place.mkdir()
                hubs[name] = Hub(
                    folder=place, run=run, base=base, client=client, cache_dir=place / "cache", settings=text
                )
            asyncio.run(fill(hubs["ours"], profiles=arguments.profiles, environments=arguments.environments))
            for number in range(arguments.rounds):
                for name, hub in hubs.items():
                    found[name].append(measured(hub, choices=arguments.profiles, users=arguments.users, times=20))
                print(f"round {number + 1}: load average {os.getloadavg()[0]:.1f}", flush=True)
        finally:
            clean_up(client, run)
            client.close()
    print(
        f"\n{arguments.profiles} choices, {PACKAGES} packages each, {arguments.environments} environments in the "
        "ledger; milliseconds\n\n"
        f"| form | first | next, median (range) | {arguments.users} users at once, median (worst) | kB |\n"
        "| --- | --- | --- | --- | --- |"
    )
    for name, rounds in found.items():
        print(row(name, rounds))


if __name__ == "__main__":
    main()
