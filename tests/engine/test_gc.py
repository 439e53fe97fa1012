"""`prebuilt-spawner gc` beside a hub that works."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from prebuilt_spawner import cli

from .hub import Hub

LISTS = (["xlsxwriter"], ["python-docx"], ["xlsxwriter", "tabulate"])


def age(hub: Hub) -> None:
    """Make every use in the ledger forty days old."""
    connection = sqlite3.connect(hub.folder / "ledger.sqlite", timeout=30)
    with connection:
        connection.execute("UPDATE environments SET last_used_at = datetime('now', '-40 days') || '.000000'")
    connection.close()


def gc(hub: Hub, *more: str) -> int:
    return cli.main(["gc", "--older-than", "30", "--config", str(hub.folder / "jupyterhub_config.py"), *more])


def test_old_images_go_and_those_with_containers_stay(hub: Hub, capsys: pytest.CaptureFixture[str]):
    """A stopped server's container counts too. What is gone is built again at the next start."""
    stopped, removed = hub.user("stopped"), hub.user("removed")
    tags = {}
    for user, packages in ((stopped, ["xlsxwriter"]), (removed, ["python-docx"])):
        assert hub.start_server(user, {"packages": packages}).ready
        tags[user] = hub.tag(user)
        hub.stop_server(user)
    hub.client.remove_container(hub.container(removed)["Id"])
    assert gc(hub, "--json") == 0
    assert json.loads(capsys.readouterr().out)["removed"] == [], "used lately"
    age(hub)
    assert gc(hub, "--dry-run") == 0
    assert hub.derived_tags() >= set(tags.values())
    capsys.readouterr()
    assert gc(hub, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [image["names"] for image in said["removed"]] == [[tags[removed]]]
    assert 0 < said["removed_bytes"] < 50_000_000
    assert tags[removed] not in hub.derived_tags()
    assert tags[stopped] in hub.derived_tags()
    assert hub.start_server(removed, {"packages": ["python-docx"]}).ready
    assert hub.tag(removed) == tags[removed]


def test_a_clean_up_while_servers_start_from_old_images_fails_no_start(make_hub: Callable[..., Hub]):
    """It runs again and again meanwhile, and still removes what nobody starts."""
    hub = make_hub(settings="c.PrebuiltSpawner.remove = True\n")
    hub.start()
    users = [hub.user(f"starter{number}") for number in range(len(LISTS))]
    idle = hub.user("idle")
    tags = set()
    for user, packages in (*zip(users, LISTS, strict=True), (idle, ["tabulate"])):
        assert hub.start_server(user, {"packages": packages}).ready
        tags.add(hub.tag(user))
        idle_tag = hub.tag(user)
        hub.stop_server(user)
    assert len(tags) == len(LISTS) + 1
    age(hub)
    ended = threading.Event()
    statuses = []

    def clean() -> None:
        while not ended.is_set():
            statuses.append(gc(hub))
            ended.wait(0.2)  # others want the processors too

    with ThreadPoolExecutor(len(LISTS) + 1) as threads:
        cleaning = threads.submit(clean)
        try:
            starts = [
                threads.submit(hub.start_server, user, {"packages": packages})
                for user, packages in zip(users, LISTS, strict=True)
            ]
            outcomes = [start.result() for start in starts]
        finally:
            ended.set()
        cleaning.result()
    assert [outcome.ready for outcome in outcomes] == [True] * len(LISTS), hub.log()
    assert set(statuses) == {0}
    assert {hub.tag(user) for user in users} | {idle_tag} == tags
    assert idle_tag not in hub.derived_tags()
