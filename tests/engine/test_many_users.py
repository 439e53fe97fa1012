"""Many users at once: one build for all who want the same, a queue for those who do not, and a hub that goes on."""

from __future__ import annotations

import secrets
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
import requests

from ..index_server import IndexServer
from .hub import TEST_LABEL, Hub, Outcome, remove_containers


@pytest.fixture
def index() -> Iterator[IndexServer]:
    """Twenty small packages, of which no other test has made environments."""
    word = secrets.token_hex(4)
    with IndexServer() as index:
        for number in range(20):
            index.add_wheel(f"small{number}", "1.0", files={f"small{number}.py": f"word = {word!r}\n"})
        yield index


@pytest.fixture
def make_light_hub(
    make_hub: Callable[..., Hub], light_base: str, tmp_path: Path, client: docker.APIClient, run: str
) -> Iterator[Callable[..., Hub]]:
    """Makes hubs whose servers are light, and are gone after the test; arguments as of `Hub`."""

    def make(index: IndexServer | None = None, *, settings: str = "", **arguments) -> Hub:
        if index is not None:
            settings += f"c.PrebuiltSpawner.index_url = {index.url!r}\n"
            arguments.setdefault("cache_dir", tmp_path / "cache")
        # Else each request for a server that has to wait is answered after ten seconds.
        settings += "c.JupyterHub.tornado_settings = {'slow_spawn_timeout': 2}\n"
        hub = make_hub(base=light_base, settings=settings, **arguments)
        hub.start()
        return hub

    yield make
    remove_containers(client, run)


class Latencies:
    """How long the hub takes to answer, asked again and again while this is entered."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._stop = threading.Event()
        self.seconds: list[float] = []

    def __enter__(self) -> Latencies:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                begun = time.monotonic()
                assert session.get(f"{self._hub.url}/hub/api/", timeout=30).ok
                self.seconds.append(time.monotonic() - begun)
                self._stop.wait(0.02)

    def __str__(self) -> str:
        found = sorted(self.seconds)
        p99 = found[min(len(found) - 1, int(len(found) * 0.99))]
        milliseconds = [1000 * value for value in (statistics.median(found), p99, found[-1])]
        return "median {:.0f} ms, p99 {:.0f} ms, worst {:.0f} ms of {}".format(*milliseconds, len(found))


def at_once(hub: Hub, users: list[str], options: Callable[[str], dict]) -> list[Outcome]:
    with ThreadPoolExecutor(len(users)) as threads:
        return list(threads.map(lambda user: hub.start_server(user, options(user)), users))


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def builds(hub: Hub) -> list[tuple]:
    """(outcome, requirements, users) of every build that the ledger remembers, the latter two as text."""
    return hub.ledger(
        "SELECT outcome, requirements, group_concat(user) FROM builds JOIN build_users ON build_id = builds.id "
        "GROUP BY builds.id ORDER BY builds.id"
    )


def test_many_users_share_one_build_and_the_hub_goes_on_answering(
    make_light_hub, wheels: Path, capsys: pytest.CaptureFixture[str]
):
    """All get their server, from one image; exactly one build ran. How long the hub took to answer is printed."""
    # DockerSpawner has one thread for all containers, and JupyterHub counts the wait for it as the container's start.
    patience = "c.JupyterHub.concurrent_spawn_limit = 0\nc.PrebuiltSpawner.start_timeout = 400\n"
    hub: Hub = make_light_hub(settings=patience, cache_dir=wheels)
    users = [hub.user(f"many{number}") for number in range(30)]
    with Latencies(hub) as idle:
        time.sleep(3)
    with Latencies(hub) as busy:
        outcomes = at_once(hub, users, lambda user: {"packages": ["pandas", "matplotlib"]})
    assert all(outcome.ready for outcome in outcomes), [outcome for outcome in outcomes if not outcome.ready]
    assert len({hub.tag(user) for user in users}) == 1
    ((outcome, _, askers),) = builds(hub)
    assert outcome == "done"
    assert set(askers.split(",")) <= set(users)
    assert len(askers.split(",")) > 10, "many of them waited for it"
    with capsys.disabled():
        print(f"\nthe hub's answers while idle: {idle}; while 30 servers start: {busy}")


def test_builds_wait_in_line_and_one_too_many_is_a_429(
    make_light_hub, index: IndexServer, capsys: pytest.CaptureFixture[str]
):
    """Two are built, ten wait, eight are turned away; who needs no build waits for nobody."""
    hub: Hub = make_light_hub(index, settings="c.PrebuiltSpawner.max_queued_builds = 10\n")
    ready = hub.user("ready")
    assert hub.start_server(ready, {"packages": ["small19"]}).ready
    hub.stop_server(ready)
    index.behaviour.stalled |= {file.filename for file in index.files.values()}
    users = {f"small{number}": hub.user(f"line{number}") for number in range(12)}
    for number, (package, user) in enumerate(users.items()):
        answer = hub.api("POST", hub.server_path(user), hub.options_body({"packages": [package]}))
        assert answer.status == 202
        if number < 2:
            wait_until(lambda number=number: len(index.paths("/files/small")) > number + 1)
        else:
            place = "Waiting for another build" if number == 2 else f"place {number - 1} in line"
            assert any(place in event["message"] for event in first_events(hub, user, place))
    for number in range(12, 19):
        turned_away = hub.start_server(hub.user(f"line{number}"), {"packages": [f"small{number}"]})
        assert not turned_away.ready
        assert turned_away.status in (429, 202), "202 where the machine is slow"
        assert "wait to be built already" in turned_away.message
    begun = time.monotonic()
    assert hub.start_server(ready, {"packages": ["small19"]}).ready
    with capsys.disabled():
        print(f"\na ready image started in {time.monotonic() - begun:.1f} s while 12 environments waited")
    assert hub.api("GET", f"/users/{users['small11']}").body["pending"] == "spawn"
    index.release()
    for user in users.values():
        assert list(hub.progress(user))[-1].get("ready")
    done = [requirements for outcome, requirements, _ in builds(hub) if outcome == "done"]
    arrived = [f'["{package}"]' for package in ("small19", *users)]
    assert sorted(done) == sorted(arrived)
    # Two have their turn at once, and either may be the first to be written down.
    assert all(abs(done.index(each) - place) <= 1 for place, each in enumerate(arrived)), f"in order of arrival: {done}"


def first_events(hub: Hub, user: str, word: str) -> list[dict]:
    """The progress events of a pending start, until one has the word in it."""
    events = []
    for event in hub.progress(user):
        events.append(event)
        if word in event["message"]:
            break
    return events


def test_who_leaves_disturbs_nobody_and_when_all_have_left_nothing_runs(
    make_light_hub, index: IndexServer, client: docker.APIClient
):
    """Of three who wait one cancels and one's time is up: the third gets its server. When all leave, the download, the
    workers and the containers of the build are gone within two seconds, and nothing half made is left."""
    hub: Hub = make_light_hub(
        index,
        settings="import os\nc.PrebuiltSpawner.profile_list = [\n"
        "    {'display_name': 'Patient', 'slug': 'patient', 'default': True},\n"
        "    {'display_name': 'Hasty', 'slug': 'hasty', 'spawner_override': {'build_timeout': 2}},\n]\n",
    )
    # Names that hold images stay behind where a hub was killed, as in other tests of the run.
    ran_before = set(what_runs(client, hub))
    index.behaviour.stalled |= {file.filename for file in index.files.values()}
    stays, leaves, hasty = (hub.user(name) for name in ("stays", "leaves", "hasty"))

    def start(user: str, package: str, profile: str = "patient") -> None:
        body = hub.options_body({"packages": [package], "profile": profile})
        # JupyterHub says 201 for one that is pending where the start before it has failed.
        assert hub.api("POST", hub.server_path(user), body).status in (201, 202)

    start(stays, "small0")
    start(leaves, "small0")
    # Another profile's extra packages are a request of their own, of the same environment.
    timed_out = hub.start_server(hasty, {"packages": ["small0"], "profile": "hasty"})
    assert not timed_out.ready
    assert "not ready within 2 seconds" in timed_out.message
    assert hub.api("DELETE", hub.server_path(leaves)).status in (202, 204)
    index.release()
    assert list(hub.progress(stays))[-1].get("ready")
    index.released.clear()

    before = images_of_ours(client, hub)
    start(leaves, "small1")
    start(hasty, "small1")
    wait_until(lambda: any("small1-1.0" in path for path in index.paths("/files/")))
    for user in (leaves, hasty):
        assert hub.api("DELETE", hub.server_path(user)).status in (202, 204)
    gone = time.monotonic() + 2
    while (running := set(what_runs(client, hub)) - ran_before) and time.monotonic() < gone:
        time.sleep(0.05)
    assert not running
    assert images_of_ours(client, hub) == before
    wait_until(lambda: "cancelled" in [outcome for outcome, _, _ in builds(hub)])
    index.release()
    assert hub.start_server(leaves, {"packages": ["small1"], "profile": "patient"}).ready


def what_runs(client: docker.APIClient, hub: Hub) -> list[str]:
    """What a build makes run, besides what is kept for the next one: names that hold images, builds in the ledger."""
    held = [tag for image in client.images(hub.repository) for tag in image["RepoTags"] or () if ":hold-" in tag]
    return held + [outcome for outcome, _, _ in builds(hub) if outcome == "running"]


def images_of_ours(client: docker.APIClient, hub: Hub) -> set[str]:
    """Of this hub, named or not."""
    found = client.images(all=True, filters={"label": "prebuilt_spawner.digest"})
    named = {tag for image in found for tag in image["RepoTags"] or () if tag.startswith(hub.repository)}
    return named | {image["Id"] for image in found if not image["RepoTags"]}


def test_two_hubs_that_want_the_same_at_once_share_the_image(make_light_hub, make_hub, index, tmp_path: Path):
    """One engine, one ledger, two hubs: both users are served, from one image."""
    first: Hub = make_light_hub(index)
    shared = f"c.PrebuiltSpawner.db_url = 'sqlite:///{first.folder}/ledger.sqlite'\n"
    second: Hub = make_light_hub(index, settings=shared, cache_dir=tmp_path / "other-cache")
    one, other = first.user("one"), second.user("other")
    with ThreadPoolExecutor(2) as threads:
        outcomes = threads.map(
            lambda pair: pair[0].start_server(pair[1], {"packages": ["small3", "small4"]}),
            [(first, one), (second, other)],
        )
        assert all(outcome.ready for outcome in outcomes)
    assert first.tag(one) == second.tag(other)
    assert first.image(one)["Id"] == second.image(other)["Id"]
    assert TEST_LABEL in first.container(one)["Config"]["Labels"]
