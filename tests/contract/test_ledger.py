"""What a ledger promises, on a database in memory and on a file."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.pool import NullPool

from prebuilt_spawner.build.interface import StoredLock
from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.errors import StorageFailure
from prebuilt_spawner.image.stacking import Stack, StackedLayer
from prebuilt_spawner.ledger import SqlLedger, migrations, schema

REQUEST, OTHER_REQUEST, LINEAGE = "a" * 64, "b" * 64, "c" * 64


class Clock:
    """Time that passes only when a test says so; in a zone that is not UTC, as a careless caller's may be."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    def __call__(self) -> datetime:
        return self.time

    def pass_hours(self, hours: int) -> None:
        self.time += timedelta(hours=hours)


def wheel(name: str = "demo", version: str = "1.0", **changes) -> LockedWheel:
    filename = f"{name}-{version}-py3-none-any.whl"
    sha256 = (name + version).encode().hex().ljust(64, "0")[:64]
    made = LockedWheel(
        name=name,
        version=version,
        filename=filename,
        url=f"https://index.example/{filename}",
        sha256=sha256,
        size_bytes=1234,
    )
    return replace(made, **changes)


def lock(*versions: str) -> Lock:
    return Lock(wheels=tuple(wheel(f"demo{number}", version) for number, version in enumerate(versions)))


async def remember(ledger: SqlLedger, locked: Lock, **changes) -> StoredLock:
    asked = {"scope": "", "request_digest": REQUEST, "lineage": LINEAGE, "ancestor_id": None}
    return await ledger.remember(lock=locked, **{**asked, **changes})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def ledger(ledger_url: str, clock: Clock) -> AsyncIterator[SqlLedger]:
    ledger = SqlLedger(ledger_url, now=clock)
    yield ledger
    await ledger.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def rows(file: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(file)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


async def test_package_names_are_those_of_what_was_used_last(ledger: SqlLedger, clock: Clock) -> None:
    """Each once, and of so many environments at most."""
    assert await ledger.package_names() == set()
    for digest, names in (("d", ("alpha", "beta")), ("e", ("beta", "gamma"))):
        locked = Lock(wheels=tuple(wheel(name) for name in names))
        await ledger.record_environment(digest=digest * 64, base_digest="f" * 64, lock=locked, size_bytes=1)
        clock.pass_hours(1)
    assert await ledger.package_names() == {"alpha", "beta", "gamma"}
    assert await ledger.package_names(limit=1) == {"beta", "gamma"}


async def test_an_empty_ledger_knows_nothing(ledger):
    assert await ledger.held(owner="user:a", request_digest=REQUEST) is None
    assert await ledger.held_in_lineage(owner="user:a", lineage=LINEAGE) is None
    assert await ledger.newest(scope="", request_digest=REQUEST) is None
    assert await ledger.newest_in_lineage(scope="", lineage=LINEAGE) is None
    assert await ledger.descendant(ancestor_id=1, request_digest=REQUEST) is None
    assert await ledger.stored(1) is None


async def test_a_lock_comes_back_as_it_was_stored(ledger):
    asked = Lock(wheels=(wheel("a", size_bytes=None), wheel("b", "2!1.0.post1+local.1")))
    stored = await remember(ledger, asked)
    assert (stored.lock, stored.request_digest, stored.lineage) == (asked, REQUEST, LINEAGE)
    assert await ledger.newest(scope="", request_digest=REQUEST) == stored
    assert await ledger.newest_in_lineage(scope="", lineage=LINEAGE) == stored


async def test_the_empty_lock_can_be_stored(ledger):
    assert (await remember(ledger, Lock())).lock == Lock()


async def test_the_lock_that_was_made_last_is_the_newest_even_when_the_clock_stands_or_goes_back(ledger, clock):
    await remember(ledger, lock("1"))
    await remember(ledger, lock("2"))
    clock.pass_hours(-5)
    last = await remember(ledger, lock("3"))
    assert await ledger.newest(scope="", request_digest=REQUEST) == last
    assert await ledger.newest_in_lineage(scope="", lineage=LINEAGE) == last


async def test_wheels_that_equal_the_newest_are_not_stored_again(ledger):
    first = await remember(ledger, lock("1", "2"))
    moved = Lock(wheels=tuple(replace(w, url="https://mirror.example/" + w.filename) for w in first.lock.wheels))
    assert await remember(ledger, moved) == first


async def test_wheels_that_equal_an_older_lock_become_the_newest(ledger):
    """An index that takes a version back must be able to win over it."""
    first = await remember(ledger, lock("1"))
    await remember(ledger, lock("2"))
    again = await remember(ledger, lock("1"))
    assert again.id > first.id
    assert await ledger.newest(scope="", request_digest=REQUEST) == again


@pytest.mark.parametrize("difference", [{"sha256": "f" * 64}, {"version": "1.1"}, {"name": "demo-x"}])
async def test_wheels_that_differ_in_name_version_or_hash_are_another_lock(ledger, difference):
    first = await remember(ledger, Lock(wheels=(wheel(),)))
    second = await remember(ledger, Lock(wheels=(wheel(**difference),)))
    assert second.id != first.id


async def test_scopes_do_not_see_each_other(ledger):
    free = await remember(ledger, lock("1"))
    profile = await remember(ledger, lock("1"), scope="profile:data")
    assert profile.id != free.id
    assert await ledger.newest(scope="", request_digest=REQUEST) == free
    assert await ledger.newest_in_lineage(scope="profile:data", lineage=LINEAGE) == profile


async def test_requests_of_one_lineage_are_told_apart_and_found_together(ledger):
    old = await remember(ledger, lock("1"))
    new = await remember(ledger, lock("1"), request_digest=OTHER_REQUEST)
    assert await ledger.newest(scope="", request_digest=REQUEST) == old
    assert await ledger.newest_in_lineage(scope="", lineage=LINEAGE) == new


async def test_an_owner_holds_one_lock_for_a_request_and_the_last_one_counts(ledger):
    first, second = await remember(ledger, lock("1")), await remember(ledger, lock("2"))
    await ledger.hold(owner="user:a", lock=first)
    await ledger.hold(owner="user:b", lock=second)
    await ledger.hold(owner="user:a", lock=second)
    await ledger.hold(owner="user:b", lock=first)
    assert await ledger.held(owner="user:a", request_digest=REQUEST) == second
    assert await ledger.held(owner="user:b", request_digest=REQUEST) == first
    assert await ledger.held(owner="profile:a", request_digest=REQUEST) is None


async def test_what_an_owner_held_last_in_a_lineage_is_what_they_chose_last(ledger, clock):
    """Also where they go back to an older lock, as when a base is put back."""
    old = await remember(ledger, lock("1"))
    new = await remember(ledger, lock("2"), request_digest=OTHER_REQUEST)
    for chosen in (old, new, old):
        clock.pass_hours(1)
        await ledger.hold(owner="user:a", lock=chosen)
        assert await ledger.held_in_lineage(owner="user:a", lineage=LINEAGE) == chosen


async def test_a_descendant_is_found_by_its_ancestor_and_its_own_request(ledger):
    ancestor = await remember(ledger, lock("1"))
    child = await remember(ledger, lock("1"), request_digest=OTHER_REQUEST, ancestor_id=ancestor.id)
    assert await ledger.descendant(ancestor_id=ancestor.id, request_digest=OTHER_REQUEST) == child
    assert await ledger.descendant(ancestor_id=ancestor.id, request_digest=REQUEST) is None
    assert await ledger.descendant(ancestor_id=child.id, request_digest=OTHER_REQUEST) is None


async def test_equal_wheels_are_stored_once_for_each_ancestor_so_that_each_finds_its_descendant(ledger):
    first, second = await remember(ledger, lock("1")), await remember(ledger, lock("2"))
    for ancestor in (first, second):
        made = [
            await remember(ledger, lock("3"), request_digest=OTHER_REQUEST, ancestor_id=ancestor.id) for _ in range(2)
        ]
        assert made[0] == made[1]
        assert await ledger.descendant(ancestor_id=ancestor.id, request_digest=OTHER_REQUEST) == made[0]


async def test_a_generation_is_the_id_of_the_lock_that_all_go_back_to(ledger):
    root = await remember(ledger, lock("1"))
    child = await remember(ledger, lock("2"), request_digest=OTHER_REQUEST, ancestor_id=root.id)
    grandchild = await remember(ledger, lock("3"), request_digest="d" * 64, ancestor_id=child.id)
    fresh = await remember(ledger, lock("4"), request_digest=OTHER_REQUEST)
    assert [root.generation, child.generation, grandchild.generation] == [root.id] * 3
    assert fresh.generation == fresh.id
    for made in (root, child, grandchild, fresh):
        assert await ledger.stored(made.id) == made


async def test_the_newest_is_the_last_one_of_the_newest_generation_and_not_what_was_stored_last(ledger):
    old, new = await remember(ledger, lock("1")), await remember(ledger, lock("2"))
    kept = await remember(ledger, lock("1"), request_digest=OTHER_REQUEST, ancestor_id=old.id)
    assert await ledger.newest_in_lineage(scope="", lineage=LINEAGE) == new
    assert await ledger.newest(scope="", request_digest=OTHER_REQUEST) == kept
    followed = await remember(ledger, lock("2"), request_digest=OTHER_REQUEST, ancestor_id=new.id)
    await remember(ledger, lock("1.5"), request_digest=OTHER_REQUEST, ancestor_id=old.id)
    assert await ledger.newest(scope="", request_digest=OTHER_REQUEST) == followed
    assert await ledger.newest_in_lineage(scope="", lineage=LINEAGE) == followed


async def test_what_was_resolved_anew_is_a_generation_of_its_own_even_if_it_equals_a_lock_of_an_older_one(ledger):
    """It must win over a newer generation on another content of the base."""
    old = await remember(ledger, lock("1"))
    await remember(ledger, lock("2"), request_digest=OTHER_REQUEST)
    again = await remember(ledger, lock("1"))
    assert again.generation == again.id != old.id
    assert await ledger.newest_in_lineage(scope="", lineage=LINEAGE) == again


async def test_what_was_resolved_anew_and_equals_the_newest_generation_is_not_stored_again(ledger):
    root = await remember(ledger, lock("1"))
    child = await remember(ledger, lock("1"), request_digest=OTHER_REQUEST, ancestor_id=root.id)
    assert await remember(ledger, lock("1"), request_digest=OTHER_REQUEST) == child


async def test_a_lock_knows_the_profiles_lock_that_it_stands_on(ledger):
    profile = await remember(ledger, lock("1"), scope="profile:data", request_digest=OTHER_REQUEST)
    made = await remember(ledger, lock("1", "2"), scope="extras:data", profile_lock_id=profile.id)
    assert made.profile_lock_id == profile.id
    assert await ledger.newest(scope="extras:data", request_digest=REQUEST) == made
    assert await ledger.stored(profile.id) == profile
    assert profile.profile_lock_id is None


async def test_a_lock_never_becomes_its_own_ancestor(ledger):
    first = await remember(ledger, lock("1"))
    await remember(ledger, lock("1"), ancestor_id=first.id)
    assert await ledger.descendant(ancestor_id=first.id, request_digest=REQUEST) is None


async def test_an_ancestor_or_a_lock_of_another_ledger_is_refused_and_changes_nothing(ledger):
    with pytest.raises(StorageFailure):
        await remember(ledger, lock("1"), ancestor_id=41)
    with pytest.raises(StorageFailure):
        await remember(ledger, lock("1"), profile_lock_id=41)
    stranger = StoredLock(id=41, request_digest=REQUEST, lineage=LINEAGE, lock=lock("1"), generation=41)
    with pytest.raises(StorageFailure):
        await ledger.hold(owner="user:a", lock=stranger)
    assert await ledger.newest(scope="", request_digest=REQUEST) is None
    assert await ledger.held(owner="user:a", request_digest=REQUEST) is None


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://me:s3cret@index.example/a.whl", "https://index.example/a.whl"),
        ("https://tok@en@index.example:8443/a.whl?x=1#y", "https://index.example:8443/a.whl?x=1#y"),
        ("http://me:s3cret@[::1]:80/a@b.whl", "http://[::1]:80/a@b.whl"),
        ("https://index.example/a@1.0.whl", "https://index.example/a@1.0.whl"),
    ],
)
async def test_no_credentials_of_a_url_are_stored(ledger, url, kept):
    stored = await remember(ledger, Lock(wheels=(wheel(url=url),)))
    assert stored.lock.wheels[0].url == kept
    assert (await ledger.newest(scope="", request_digest=REQUEST)) == stored


@pytest.mark.parametrize(
    "owner", ["user:'; DROP TABLE locks; --", "user:zoë@uni.example", "user:" + "x" * 255, "user:%"]
)
async def test_any_user_name_is_only_a_name(ledger, owner):
    stored = await remember(ledger, lock("1"))
    await ledger.hold(owner=owner, lock=stored)
    assert await ledger.held(owner=owner, request_digest=REQUEST) == stored
    assert await ledger.held(owner="user:x", request_digest=REQUEST) is None


async def test_many_calls_at_once_store_equal_locks_once(ledger):
    found = await asyncio.gather(*(remember(ledger, lock("1")) for _ in range(20)))
    assert len({stored.id for stored in found}) == 1
    await asyncio.gather(*(ledger.hold(owner="user:a", lock=found[0]) for _ in range(20)))
    assert await ledger.held(owner="user:a", request_digest=REQUEST) == found[0]


async def test_an_environment_keeps_its_first_time_its_last_use_and_a_count(file, clock):
    ledger = SqlLedger(f"sqlite:///{file}", now=clock)
    for size_bytes in (10, 12):
        await ledger.record_environment(digest=REQUEST, base_digest=LINEAGE, lock=lock("1"), size_bytes=size_bytes)
        clock.pass_hours(1)
    await ledger.close()
    columns = "digest, base_digest, packages, size_bytes, created_at, last_used_at, uses"
    assert rows(file, f"SELECT {columns} FROM environments") == [
        (REQUEST, LINEAGE, '["demo0==1"]', 12, "2030-01-01 10:00:00.000000", "2030-01-01 11:00:00.000000", 2)
    ]


def stack(digest: str, *layers: str) -> Stack:
    """Each layer is written as its wheels: `ab` has the wheels `a` and `b`, `` is one of whiteouts."""
    return Stack(
        digest=digest,
        layers=tuple(
            StackedLayer(diff_id=f"sha256:{digest}-{number}", wheels=frozenset(layer))
            for number, layer in enumerate(layers)
        ),
    )


async def record(ledger: SqlLedger, made: Stack, **changes) -> None:
    about = {"layout_version": 2, "base_digest": "base", "lock": lock("1"), "size_bytes": 10}
    await ledger.record_image(made, **{**about, **changes})


async def found(ledger: SqlLedger, wheels: str, **changes) -> list[Stack]:
    return list(await ledger.stacks(**{"layout_version": 2, "base_digest": "base", "wheels": set(wheels), **changes}))


async def test_the_stacks_that_share_most_wheels_are_found_first(ledger):
    few, many, none = stack("few", "", "a", "xyz"), stack("many", "ab", "c"), stack("none", "x")
    for made in (few, none, many):
        await record(ledger, made)
    assert await found(ledger, "abc") == [many, few]
    assert await found(ledger, "abc", limit=1) == [many]
    assert await found(ledger, "") == []


async def test_a_stack_is_of_its_base_and_its_layout_version(ledger):
    await record(ledger, stack("one", "a"))
    await record(ledger, stack("two", "a"), base_digest="other")
    await record(ledger, stack("three", "a"), layout_version=3)
    assert [each.digest for each in await found(ledger, "a")] == ["one"]
    assert [each.digest for each in await found(ledger, "a", base_digest="other")] == ["two"]
    assert [each.digest for each in await found(ledger, "a", layout_version=3)] == ["three"]


async def test_an_image_that_is_made_again_in_another_way_has_its_new_layers(ledger):
    await record(ledger, stack("one", "a", "b"))
    await record(ledger, stack("one", "bc"))
    assert await found(ledger, "abc") == [stack("one", "bc")]
    assert await ledger.popularity({"a", "b", "c"}) == {"b": 1, "c": 1}


async def test_a_wheels_popularity_is_the_number_of_images_that_have_it(ledger):
    await record(ledger, stack("one", "a", "b"))
    await record(ledger, stack("two", "bc"), base_digest="other")
    await record(ledger, stack("three", "b"))
    assert await ledger.popularity({"a", "b", "z"}) == {"a": 1, "b": 3}
    assert await ledger.popularity(set()) == {}


async def test_making_an_image_is_no_use_of_it_and_using_it_does_not_forget_its_layers(file):
    ledger = SqlLedger(f"sqlite:///{file}")
    await record(ledger, stack("one", "a"))
    assert rows(file, "SELECT uses, size_bytes FROM environments") == [(0, 10)]
    await ledger.record_environment(digest="one", base_digest="base", lock=lock("1"), size_bytes=20)
    await ledger.record_environment(digest="used", base_digest="base", lock=lock("1"), size_bytes=20)
    assert rows(file, "SELECT uses, size_bytes FROM environments ORDER BY digest") == [(1, 20), (1, 20)]
    assert await found(ledger, "a") == [stack("one", "a")]
    await ledger.close()


async def test_images_that_are_recorded_at_once_are_recorded_once(ledger):
    await asyncio.gather(*(record(ledger, stack("one", "a", "b")) for _ in range(10)))
    assert await found(ledger, "ab") == [stack("one", "a", "b")]


async def test_a_ledger_of_the_first_schema_keeps_what_it_knows(file):
    """Its environments have no known layers until they are made again."""
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with engine.begin() as connection:
        migrations.upgrade(connection, "0001")
        connection.execute(
            text("INSERT INTO environments VALUES ('old', 'base', '[]', 1, '2030-01-01', '2030-01-01', 5)")
        )
    ledger = SqlLedger(f"sqlite:///{file}")
    assert await found(ledger, "a") == []
    await record(ledger, stack("old", "a"))
    assert await found(ledger, "a") == [stack("old", "a")]
    assert rows(file, "SELECT uses FROM environments") == [(5,)]
    await ledger.close()


async def test_a_time_without_a_zone_is_refused(tmp_path):
    ledger = SqlLedger("sqlite://", now=lambda: datetime(2030, 1, 1))
    with pytest.raises(StorageFailure):
        await remember(ledger, lock("1"))
    await ledger.close()


async def test_what_was_stored_is_there_after_a_restart(file):
    first = SqlLedger(f"sqlite:///{file}")
    stored = await remember(first, lock("1"))
    await first.hold(owner="user:a", lock=stored)
    await first.close()
    second = SqlLedger(f"sqlite:///{file}")
    assert await second.held(owner="user:a", request_digest=REQUEST) == stored
    await second.close()


async def test_the_event_loop_goes_on_while_another_process_keeps_the_database_busy(file):
    ledger = SqlLedger(f"sqlite:///{file}")
    await ledger.open()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.ensure_future(remember(ledger, lock("1")))
    # Reads are answered meanwhile, again and again; the write waits for its turn.
    for _ in range(5):
        assert await ledger.newest(scope="", request_digest=REQUEST) is None
    assert not writing.done()
    other.execute("COMMIT")
    other.close()
    stored = await writing
    assert await ledger.newest(scope="", request_digest=REQUEST) == stored
    await ledger.close()


WRITER = """
import asyncio, sys
from prebuilt_spawner.environment.lock import Lock, LockedWheel
from prebuilt_spawner.ledger import SqlLedger

def lock(version):
    return Lock(wheels=(LockedWheel(name="demo", version=version, filename="demo.whl", url="", sha256="0" * 64),))

async def main(url, own, rounds):
    ledger = SqlLedger(url)
    await ledger.open()
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(rounds):
        shared = await ledger.remember(
            scope="", request_digest=f"shared-{number}", lineage=f"l-{number}", lock=lock("1"), ancestor_id=None)
        mine = await ledger.remember(
            scope="", request_digest="contended", lineage="l", lock=lock(f"{number}.{own}"), ancestor_id=None)
        await ledger.hold(owner="user:a", lock=shared)
        await ledger.hold(owner="user:a", lock=mine)
        await ledger.record_environment(digest="e", base_digest="b", lock=shared.lock, size_bytes=1)
        print(number, flush=True)
    await ledger.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def start_writer(file: Path, own: int, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, f"sqlite:///{file}", str(own), str(rounds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_several_processes_that_start_and_write_at_once_lose_nothing_and_store_nothing_twice(file):
    """From a file that is not there: all run the migrations, then all write the same and different locks."""
    writers = [start_writer(file, own, 15) for own in range(3)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    shared = rows(file, "SELECT request_digest FROM locks WHERE request_digest LIKE 'shared%'")
    assert sorted(shared) == sorted((f"shared-{number}",) for number in range(15))
    revisions = rows(file, "SELECT revision FROM locks WHERE request_digest = 'contended' ORDER BY id")
    assert revisions == [(number,) for number in range(1, 46)]
    assert rows(file, "SELECT count(*) FROM holdings") == [(16,)]
    assert rows(file, "SELECT uses FROM environments") == [(45,)]


async def test_a_process_that_is_killed_while_it_writes_leaves_a_ledger_that_works(file):
    writer = start_writer(file, 0, 100_000)
    assert writer.stdout.readline() == "ready\n"
    writer.stdin.write("\n")
    writer.stdin.flush()
    for _ in range(10):
        last = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    ledger = SqlLedger(f"sqlite:///{file}")
    for number in range(last + 1):
        assert await ledger.held(owner="user:a", request_digest=f"shared-{number}") is not None
    await remember(ledger, lock("1"))
    await ledger.close()
    assert rows(file, "PRAGMA integrity_check") == [("ok",)]
    assert rows(file, "SELECT count(*) FROM holdings LEFT JOIN locks ON locks.id = lock_id WHERE locks.id IS NULL") == [
        (0,)
    ]


async def test_two_ledgers_in_one_process_open_at_once(file, tmp_path):
    urls = [f"sqlite:///{file}", f"sqlite:///{file}", f"sqlite:///{tmp_path / 'second.sqlite'}", "sqlite://"]
    ledgers = [SqlLedger(url) for url in urls]
    await asyncio.gather(*(ledger.open() for ledger in ledgers for _ in range(3)))
    for ledger in ledgers:
        assert (await remember(ledger, lock("1"))).lock == lock("1")
        await ledger.close()


async def test_the_migrations_lead_to_the_schema_that_the_queries_use(file):
    ledger = SqlLedger(f"sqlite:///{file}")
    await ledger.open()
    await ledger.close()
    wanted = create_engine("sqlite://", poolclass=NullPool)
    found = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with wanted.connect() as connection:
        schema.metadata.create_all(connection)
        expected = described(connection)
    with found.connect() as connection:
        assert described(connection) == expected


def described(connection) -> dict[str, object]:
    """Columns, keys and indices of our tables, comparable."""
    inspector = inspect(connection)
    return {
        table: {
            "columns": [(c["name"], str(c["type"]), c["nullable"]) for c in inspector.get_columns(table)],
            "unique": sorted((u["name"], u["column_names"]) for u in inspector.get_unique_constraints(table)),
            "indices": sorted((i["name"], i["column_names"]) for i in inspector.get_indexes(table)),
            "foreign": sorted(
                (f["name"], f["constrained_columns"], f["referred_table"]) for f in inspector.get_foreign_keys(table)
            ),
            "primary": inspector.get_pk_constraint(table),
        }
        for table in schema.metadata.tables
    }


async def test_every_query_finds_its_rows_by_an_index(file):
    """Ledgers of a large hub have many thousands of rows."""
    ledger = SqlLedger(f"sqlite:///{file}")
    await ledger.open()
    await ledger.close()
    for condition in (
        "locks WHERE scope = '' AND request_digest = ''",
        "locks WHERE scope = '' AND lineage = '' ORDER BY generation DESC, id DESC",
        "locks WHERE ancestor_id = 1 AND request_digest = ''",
        "holdings WHERE owner = '' AND request_digest = ''",
        "holdings WHERE owner = '' AND lineage = ''",
        "holdings WHERE (owner = '' AND request_digest = '') OR (owner = 'a' AND request_digest = 'b')",
        "holdings WHERE (owner = '' AND lineage = '') OR (owner = 'a' AND lineage = 'b')",
        "locks WHERE (scope = '' AND request_digest = '') OR (scope = 'a' AND request_digest = 'b')",
        "locks WHERE (scope = '' AND lineage = '') OR (scope = 'a' AND lineage = 'b')",
        "locks WHERE (ancestor_id = 1 AND request_digest = '') OR (ancestor_id = 2 AND request_digest = 'b')",
        "environments WHERE digest = ''",
        "environment_wheels WHERE sha256 = ''",
        "environment_wheels WHERE digest = ''",
    ):
        plan = rows(file, f"EXPLAIN QUERY PLAN SELECT * FROM {condition}")
        assert not [row for row in plan if row[-1].startswith("SCAN")], plan
        assert [row for row in plan if "INDEX" in row[-1]], plan


async def test_a_database_that_a_newer_version_wrote_is_refused_and_left_as_it_is(file):
    ledger = SqlLedger(f"sqlite:///{file}")
    await ledger.open()
    await ledger.close()
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")
    connection.close()
    ledger = SqlLedger(f"sqlite:///{file}")
    with pytest.raises(StorageFailure, match="newer version") as caught:
        await remember(ledger, lock("1"))
    await ledger.close()
    assert "9999" in caught.value.detail
    assert "upgrade prebuilt-spawner" in caught.value.detail
    assert rows(file, "SELECT count(*) FROM locks") == [(0,)]


async def test_a_database_of_somebody_else_keeps_its_tables(file):
    """JupyterHub's own database may be ours too; it uses alembic's default table."""
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('651f5419b74d')")
    connection.close()
    ledger = SqlLedger(f"sqlite:///{file}")
    await remember(ledger, lock("1"))
    await ledger.close()
    assert rows(file, "SELECT * FROM alembic_version") == [("651f5419b74d",)]


async def test_a_stored_lock_of_an_unknown_form_is_reported_and_not_guessed(file):
    ledger = SqlLedger(f"sqlite:///{file}")
    await remember(ledger, lock("1"))
    for form in ('{"schema": 2, "wheels": []}', "[]", '{"schema": 1}', '{"schema": 1, "wheels": [{"x": 1}]}'):
        connection = sqlite3.connect(file)
        with connection:
            connection.execute("UPDATE locks SET wheels = ?", (form,))
        connection.close()
        with pytest.raises(StorageFailure) as caught:
            await ledger.newest(scope="", request_digest=REQUEST)
        assert "stored lock" in caught.value.detail
    await ledger.close()


async def test_a_file_that_is_no_database_is_a_storage_failure_without_a_path_for_the_user(file):
    file.write_bytes(b"these are not the bytes of a database" * 100)
    ledger = SqlLedger(f"sqlite:///{file}")
    with pytest.raises(StorageFailure) as caught:
        await ledger.open()
    await ledger.close()
    assert "not a database" in caught.value.detail
    assert str(file.parent) not in caught.value.message


async def test_a_ledger_whose_folder_appears_later_works_then(tmp_path):
    folder = tmp_path / "later"
    ledger = SqlLedger(f"sqlite:///{folder / 'ledger.sqlite'}")
    with pytest.raises(StorageFailure):
        await ledger.open()
    folder.mkdir()
    assert (await remember(ledger, lock("1"))).lock == lock("1")
    await ledger.close()


@pytest.mark.parametrize(
    "url",
    [
        "no-such-database://me:s3cr%40t@db.example/x",
        "sqlite:///file:{folder}/absent/x.sqlite?password=s3cr%40t&uri=true",
        "://me:s3cr%40t@",
        "",
    ],
)
async def test_no_error_shows_the_password_of_the_database(url, tmp_path, caplog):
    with pytest.raises(StorageFailure) as caught:
        await SqlLedger(url.format(folder=tmp_path)).open()
    error = caught.value
    assert error.__cause__ is None
    shown = f"{error.message} {error.detail} {caplog.text}"
    assert "s3cr" not in shown
    assert error.detail


async def test_a_sqlite_file_keeps_readers_and_writers_apart(file):
    ledger = SqlLedger(f"sqlite:///{file}")
    await ledger.open()
    await ledger.close()
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """What is sent to any database from now on."""
    found: list[str] = []

    def keep(_connection, _cursor, statement: str, *_others) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", keep)
    yield found
    event.remove(Engine, "before_cursor_execute", keep)


async def test_what_decides_about_versions_is_on_the_disk_and_only_that_is_waited_for(file, statements):
    """A disk to which an engine writes an image may take seconds for it, and each start of a server notes something."""
    ledger = SqlLedger(f"sqlite:///{file}")
    await ledger.open()

    async def waits(work: Awaitable[object]) -> bool:
        statements.clear()
        await work
        (*_, mode) = [each for each in statements if "synchronous" in each]
        return mode.endswith("FULL")

    stored = await ledger.remember(scope="", request_digest=REQUEST, lineage=LINEAGE, lock=lock("1"), ancestor_id=None)
    assert await waits(remember(ledger, lock("2")))
    assert await waits(ledger.hold(owner="user:a", lock=stored))
    assert not await waits(ledger.hold(owner="user:a", lock=stored))
    assert not await waits(ledger.use_environment("d" * 64))
    recorded = ledger.record_environment(digest="d" * 64, base_digest="b" * 64, lock=lock("1"), size_bytes=1)
    assert not await waits(recorded)
    await ledger.close()


async def used(file: Path) -> dict[str, int]:
    """The modes of a ledger's files while it is open."""
    ledger = SqlLedger(f"sqlite:///{file}")
    await remember(ledger, lock("1"))
    modes = {found.name: found.stat().st_mode & 0o777 for found in file.parent.glob(f"{file.name}*")}
    await ledger.close()
    return modes


def test_the_file_is_the_hubs_alone(file: Path) -> None:
    """Also what SQLite puts beside it, whatever the umask; a file that was there keeps its mode."""
    before = os.umask(0)
    try:
        modes = asyncio.run(used(file))
        assert modes == dict.fromkeys(("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"), 0o600)
        file.chmod(0o640)
        assert set(asyncio.run(used(file)).values()) == {0o640}
    finally:
        os.umask(before)
