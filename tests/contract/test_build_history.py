"""What a history of builds promises, on a database in memory and on a file."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from prebuilt_spawner.build.history import BuildHistory, BuildRecord, Outcome
from prebuilt_spawner.build.lookups import LastBuild
from prebuilt_spawner.ledger import SqlLedger, build_queries, migrations

DIGEST = "a" * 64
BEGIN = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.time = BEGIN

    def __call__(self) -> datetime:
        return self.time

    def pass_seconds(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def history(ledger_url: str, clock: Clock) -> AsyncIterator[BuildHistory]:
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


async def begin(history: BuildHistory, **changes) -> int:
    asked = {"hub": "hub", "digest": DIGEST, "base": "base:1", "requirements": ("numpy", "pandas>=2"), "user": "ada"}
    return await history.begin_build(**{**asked, **changes})


async def done(history: BuildHistory, seconds: float = 1, *, packages: int = 1, base: str = "base:1") -> None:
    build_id = await begin(history, base=base, requirements=["demo"] * packages)
    await history.end_build(build_id, outcome=Outcome.DONE, phase_seconds={"saving": seconds})


async def test_an_empty_history_knows_nothing(history):
    assert await history.build(1) is None
    assert await history.last_builds(digest=DIGEST) == []
    assert await history.usual_seconds(base="base:1", packages=1) is None
    assert await history.interrupt_builds(hub="hub") == []


async def test_a_build_comes_back_as_it_was_told(history, clock):
    build_id = await begin(history)
    running = BuildRecord(
        id=build_id,
        digest=DIGEST,
        base="base:1",
        requirements=("numpy", "pandas>=2"),
        users=("ada",),
        begun_at=BEGIN,
        ended_at=None,
        outcome=Outcome.RUNNING,
        phase_seconds={},
        error="",
        log="",
        size_bytes=0,
    )
    assert await history.build(build_id) == running
    clock.pass_seconds(5)
    phases = {"waiting": 1.5, "saving": 3.25, "checking": 0.25}
    await history.end_build(
        build_id, outcome=Outcome.FAILED, phase_seconds=phases, error="It is full.", log="one\ntwo\n", size_bytes=7
    )
    ended = await history.build(build_id)
    assert ended is not None
    assert (ended.outcome, ended.ended_at, ended.error, ended.log, ended.size_bytes) == (
        Outcome.FAILED,
        BEGIN + timedelta(seconds=5),
        "It is full.",
        "one\ntwo\n",
        7,
    )
    assert list(ended.phase_seconds.items()) == list(phases.items())
    assert await history.last_builds(digest=DIGEST) == [ended]


async def test_those_who_wait_are_named_once_and_in_order(history):
    build_id = await begin(history, user="zoe")
    for user in ("bob", "zoe", "ada", "bob"):
        await history.join_build(build_id, user=user)
    assert (await history.build(build_id)).users == ("zoe", "bob", "ada")


async def test_word_of_a_waiter_that_comes_after_the_end_counts(history):
    build_id = await begin(history)
    await history.end_build(build_id, outcome=Outcome.DONE, phase_seconds={})
    await history.join_build(build_id, user="bob")
    assert (await history.build(build_id)).users == ("ada", "bob")


async def test_many_who_join_at_once_are_all_named_once(history):
    build_id = await begin(history)
    await asyncio.gather(*(history.join_build(build_id, user=f"user{number % 10}") for number in range(30)))
    assert sorted((await history.build(build_id)).users) == sorted(["ada", *(f"user{n}" for n in range(10))])


async def test_a_build_that_is_not_known_is_left_unknown(history):
    await history.join_build(41, user="bob")
    await history.end_build(41, outcome=Outcome.DONE, phase_seconds={})
    assert await history.build(41) is None


@pytest.mark.parametrize("first", [Outcome.DONE, Outcome.FAILED, Outcome.CANCELLED])
async def test_a_build_that_has_ended_stays_as_it_was(history, clock, first):
    build_id = await begin(history)
    await history.end_build(build_id, outcome=first, phase_seconds={"saving": 1}, error="first", log="first")
    before = await history.build(build_id)
    clock.pass_seconds(5)
    await history.end_build(build_id, outcome=Outcome.CANCELLED, phase_seconds={}, error="second", size_bytes=3)
    assert await history.interrupt_builds(hub="hub") == []
    assert await history.build(build_id) == before


async def test_interrupting_touches_what_this_hub_left_running_and_nothing_else(history, clock):
    ours, others = await begin(history), await begin(history, hub="other")
    also_ours = await begin(history, digest="")
    ended = await begin(history)
    await history.end_build(ended, outcome=Outcome.DONE, phase_seconds={})
    clock.pass_seconds(60)
    interrupted = await history.interrupt_builds(hub="hub")
    assert [record.id for record in interrupted] == [ours, also_ours]
    assert {record.outcome for record in interrupted} == {Outcome.INTERRUPTED}
    assert {record.ended_at for record in interrupted} == {clock.time}
    assert [await history.build(record.id) for record in interrupted] == interrupted
    assert (await history.build(others)).outcome is Outcome.RUNNING
    assert (await history.build(ended)).outcome is Outcome.DONE
    assert await history.interrupt_builds(hub="hub") == []


async def test_the_last_builds_of_an_environment_come_newest_first(history):
    first, _, third = await begin(history), await begin(history, digest="b" * 64), await begin(history)
    assert [record.id for record in await history.last_builds(digest=DIGEST, limit=5)] == [third, first]
    assert [record.id for record in await history.last_builds(digest=DIGEST)] == [third]


@pytest.mark.parametrize("name", ["'; DROP TABLE builds; --", "zoë@uni.example", "x" * 255, "%", "", "日本語", "a\nb"])
async def test_any_name_is_only_a_name(history, name):
    build_id = await begin(history, user=name, hub=name, base=name)
    await history.join_build(build_id, user=name)
    found = await history.build(build_id)
    assert (found.users, found.base) == ((name,), name)
    assert [record.id for record in await history.interrupt_builds(hub=name)] == [build_id]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a\0b", "a\ufffdb"),
        ("a\ud800b", "a\ufffdb"),
        ("a\udc80", "a\ufffd"),
        ("tab\t\r\n\x1b[31m\x07 <script>", "tab\t\r\n\x1b[31m\x07 <script>"),
        ("\U0001f40d", "\U0001f40d"),
        ("\ufeffmark", "\ufeffmark"),
        ("x" * 1_000_000 + "end", "x" * 1_000_000 + "end"),
    ],
    ids=["NUL", "high half", "low half", "controls", "snake", "byte order mark", "1 MB"],
)
async def test_a_log_is_kept_whatever_is_in_it(history, text, kept):
    build_id = await begin(history, user=text[:20], requirements=[text[:20]])
    await history.end_build(build_id, outcome=Outcome.FAILED, phase_seconds={}, error=text, log=text)
    found = await history.build(build_id)
    assert (found.log, found.error) == (kept, kept)


async def test_what_is_usual_is_the_median_of_done_builds_of_like_size_on_the_base(history):
    for seconds in (1, 30, 3):
        await done(history, seconds, packages=4)
    await done(history, 1000, packages=4, base="base:2")
    await done(history, 1000, packages=1)
    await done(history, 1000, packages=9)
    failed = await begin(history, requirements=["demo"] * 4)
    await history.end_build(failed, outcome=Outcome.FAILED, phase_seconds={"saving": 1000})
    assert await history.usual_seconds(base="base:1", packages=4) == 3
    assert await history.usual_seconds(base="base:1", packages=3) == 3
    assert await history.usual_seconds(base="base:1", packages=2) == 16.5, "half and twice as many are alike"
    assert await history.usual_seconds(base="base:1", packages=8) == 16.5
    assert await history.usual_seconds(base="base:1", packages=100) is None
    assert await history.usual_seconds(base="base:3", packages=4) is None


async def test_what_is_usual_follows_the_last_builds(history):
    for _ in range(build_queries.USUAL_BUILDS):
        await done(history, 100)
    for _ in range(build_queries.USUAL_BUILDS // 2 + 1):
        await done(history, 2)
    assert await history.usual_seconds(base="base:1", packages=1) == 2


async def test_builds_without_packages_are_like_each_other_alone(history):
    await done(history, 7, packages=0)
    await done(history, 90, packages=1)
    assert await history.usual_seconds(base="base:1", packages=0) == 7


async def test_the_wait_for_a_turn_and_the_choice_of_versions_do_not_count_as_usual(history, clock):
    waited = await begin(history, requirements=["demo"])
    clock.pass_seconds(100)
    await history.end_build(waited, outcome=Outcome.DONE, phase_seconds={"resolving": 7, "waiting": 89, "saving": 4})
    assert await history.usual_seconds(base="base:1", packages=1) == 4


async def test_where_no_phase_was_told_the_clock_says_how_long_it_took(history, clock):
    for seconds in (8, -50):
        build_id = await begin(history, base=str(seconds), requirements=["demo"])
        clock.pass_seconds(seconds)
        await history.end_build(build_id, outcome=Outcome.DONE, phase_seconds={})
    assert await history.usual_seconds(base="8", packages=1) == 8
    assert await history.usual_seconds(base="-50", packages=1) == 0, "a clock that was put back"


async def test_what_is_usual_is_the_same_whether_one_asks_for_one_size_or_for_many(history):
    for number in range(60):
        await done(history, seconds=number % 17, packages=number % 7)
    await done(history, seconds=1000, packages=3, base="base:2")
    times = await history.usual_times(base="base:1")
    for packages in range(20):
        assert times.seconds(packages) == await history.usual_seconds(base="base:1", packages=packages)
    assert (await history.usual_times(base="base:3")).seconds(1) is None


async def ended(history: BuildHistory, outcome: Outcome, *, seconds: float = 1, error="", fault=False, **asked) -> None:
    build_id = await begin(history, **asked)
    await history.end_build(
        build_id, outcome=outcome, phase_seconds={"saving": seconds}, error=error, request_fault=fault
    )


async def test_the_last_build_of_a_request_is_found_by_its_base_and_its_packages_in_any_order(history):
    await ended(history, Outcome.DONE, seconds=7, requirements=("numpy", "pandas"))
    await ended(history, Outcome.FAILED, digest="", error="No.", fault=True, requirements=("numpy",))
    await ended(history, Outcome.FAILED, error="Down.", base="base:2", requirements=("numpy",))
    found = await history.last_of_requests(
        [("base:1", ("pandas", "numpy")), ("base:1", ["numpy"]), ("base:2", ["numpy"]), ("base:3", ["numpy"])]
    )
    assert found == [
        LastBuild(digest=DIGEST, outcome=Outcome.DONE, request_fault=False, error="", seconds=7),
        LastBuild(digest="", outcome=Outcome.FAILED, request_fault=True, error="No.", seconds=1),
        LastBuild(digest=DIGEST, outcome=Outcome.FAILED, request_fault=False, error="Down.", seconds=1),
        None,
    ]


@pytest.mark.parametrize("later", [Outcome.RUNNING, Outcome.CANCELLED, Outcome.INTERRUPTED])
async def test_a_build_that_came_to_no_end_does_not_count_as_the_last_one(history, later):
    await ended(history, Outcome.FAILED, error="No.", fault=True)
    build_id = await begin(history)
    if later is Outcome.CANCELLED:
        await history.end_build(build_id, outcome=later, phase_seconds={})
    elif later is Outcome.INTERRUPTED:
        await history.interrupt_builds(hub="hub")
    (found,) = await history.last_of_requests([("base:1", ("numpy", "pandas>=2"))])
    assert found.error == "No."
    await ended(history, Outcome.DONE)
    (found,) = await history.last_of_requests([("base:1", ("numpy", "pandas>=2"))])
    assert found.outcome is Outcome.DONE


async def test_the_last_builds_of_many_requests_are_found_at_once(history):
    await ended(history, Outcome.DONE, seconds=3, requirements=("demo599",))
    found = await history.last_of_requests([("base:1", (f"demo{number}",)) for number in range(600)])
    assert [number for number, last in enumerate(found) if last is not None] == [599]
    assert await history.last_of_requests([]) == []


async def test_old_builds_are_forgotten_when_another_begins(history, clock):
    old = await begin(history)
    clock.pass_seconds(build_queries.KEPT_DAYS * 86400)
    kept = await begin(history)
    assert await history.build(old) is not None
    clock.pass_seconds(1)
    newest = await begin(history)
    assert await history.build(old) is None
    assert [record.id for record in await history.last_builds(digest=DIGEST, limit=9)] == [newest, kept]


async def test_no_more_builds_are_kept_than_may_be(file, monkeypatch):
    monkeypatch.setattr(build_queries, "KEPT_BUILDS", 3)
    ledger = SqlLedger(f"sqlite:///{file}")
    made = [await begin(ledger) for _ in range(8)]
    await ledger.close()
    assert rows(file, "SELECT id FROM builds ORDER BY id") == [(build_id,) for build_id in made[-3:]]
    assert rows(file, "SELECT build_id FROM build_users ORDER BY id") == [(build_id,) for build_id in made[-3:]]


async def test_a_number_is_never_given_twice(file, clock):
    """People find it in logs."""
    ledger = SqlLedger(f"sqlite:///{file}", now=clock)
    first = await begin(ledger)
    clock.pass_seconds((build_queries.KEPT_DAYS + 1) * 86400)
    second = await begin(ledger)
    await ledger.close()
    assert second > first


async def test_a_ledger_of_an_older_schema_keeps_what_it_knows(file):
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with engine.begin() as connection:
        migrations.upgrade(connection, "0002")
        connection.execute(
            text(
                "INSERT INTO environments (digest, base_digest, packages, size_bytes, created_at, last_used_at, uses) "
                "VALUES ('old', 'base', '[]', 1, '2030-01-01', '2030-01-01', 5)"
            )
        )
    ledger = SqlLedger(f"sqlite:///{file}")
    assert await ledger.build(await begin(ledger)) is not None
    await ledger.close()
    assert rows(file, "SELECT digest, uses FROM environments") == [("old", 5)]


async def test_builds_of_the_schema_before_are_found_by_their_requests_and_are_nobodys_fault(file, clock):
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with engine.begin() as connection:
        migrations.upgrade(connection, "0003")
        for outcome, requirements in (("done", '["numpy", "\\u00e4"]'), ("failed", '["pandas"]')):
            connection.execute(
                text(
                    "INSERT INTO builds (hub, digest, base, requirements, packages, begun_at, outcome, phase_seconds, "
                    "work_seconds, size_bytes, error, log) VALUES ('hub', 'd', 'base:1', :requirements, 2, "
                    "'2030-01-01', :outcome, '[]', 4.5, 1, 'No.', 'log')"
                ),
                {"outcome": outcome, "requirements": requirements},
            )
    ledger = SqlLedger(f"sqlite:///{file}", now=clock)
    old, failed = await ledger.last_of_requests([("base:1", ("\u00e4", "numpy")), ("base:1", ("pandas",))])
    assert (old.outcome, old.seconds) == (Outcome.DONE, 4.5)
    assert (failed.outcome, failed.request_fault) == (Outcome.FAILED, False)
    assert (await ledger.build(1)).log == "log"
    await ended(ledger, Outcome.DONE, seconds=1, requirements=("pandas",))
    (newer,) = await ledger.last_of_requests([("base:1", ("pandas",))])
    assert newer.outcome is Outcome.DONE
    await ledger.close()


async def test_every_question_finds_its_rows_by_an_index(file):
    ledger = SqlLedger(f"sqlite:///{file}")
    await ledger.open()
    await ledger.close()
    for query in (
        "SELECT * FROM builds WHERE id = 1",
        "SELECT * FROM builds WHERE id = 1 AND outcome = 'running'",
        "SELECT * FROM builds WHERE digest = '' ORDER BY id DESC LIMIT 1",
        "SELECT id FROM builds WHERE hub = '' AND outcome = 'running' ORDER BY id",
        "SELECT * FROM builds WHERE base = '' AND outcome = '' AND packages BETWEEN 1 AND 2 ORDER BY id DESC LIMIT 20",
        "SELECT MAX(id) FROM builds WHERE request_key IN ('', 'a') AND outcome IN ('', 'a') GROUP BY request_key",
        "SELECT * FROM builds WHERE id IN (SELECT MAX(id) FROM builds WHERE request_key = '' GROUP BY request_key)",
        "SELECT packages, work_seconds FROM builds WHERE base = '' AND outcome = '' ORDER BY id DESC LIMIT 2000",
        "SELECT * FROM choices WHERE user = '' AND digest = ''",
        "SELECT * FROM choices WHERE user = '' AND last_used_at >= '' ORDER BY last_used_at DESC, id DESC LIMIT 5",
        "DELETE FROM builds WHERE id <= 1",
        "DELETE FROM builds WHERE begun_at < ''",
        "DELETE FROM build_users WHERE build_id IN (SELECT id FROM builds WHERE begun_at < '')",
        "SELECT * FROM build_users WHERE build_id = 1 ORDER BY id",
        "SELECT * FROM build_users WHERE build_id = 1 AND user = ''",
    ):
        plan = [row[-1] for row in rows(file, f"EXPLAIN QUERY PLAN {query}")]
        assert not [step for step in plan if step.startswith("SCAN")], (query, plan)
        if "FROM builds" in query:
            assert not [step for step in plan if "B-TREE" in step], (query, plan)


WRITER = """
import asyncio, sys
from prebuilt_spawner.build.history import (Outcome)
from prebuilt_spawner.ledger import SqlLedger

async def main(url, own, rounds):
    ledger = SqlLedger(url)
    await ledger.open()
    shared = await ledger.begin_build(hub="shared", digest="s" * 64, base="b", requirements=["x"], user="ada")
    print(shared, flush=True)
    first = int(sys.stdin.readline())
    for number in range(rounds):
        mine = await ledger.begin_build(hub=own, digest="d" * 64, base="b", requirements=["x"], user=own)
        await ledger.join_build(first, user=f"user{number}")
        await ledger.join_build(mine, user="bob")
        await ledger.end_build(mine, outcome=Outcome.DONE, phase_seconds={"saving": 1}, log="x" * 100_000)
        print(mine, flush=True)
    await ledger.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def start_writer(file: Path, own: str, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, f"sqlite:///{file}", own, str(rounds)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def let_go(writer: subprocess.Popen[str], shared: int) -> None:
    writer.stdin.write(f"{shared}\n")
    writer.stdin.flush()


def test_two_processes_that_write_at_once_lose_nothing_and_name_nobody_twice(file):
    writers = [start_writer(file, own, 15) for own in ("one", "two")]
    shared = [int(writer.stdout.readline()) for writer in writers]
    for writer in writers:
        let_go(writer, shared[0])
    ids = [line for writer in writers for line in writer.communicate()[0].split()]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(set(ids)) == 30
    assert rows(file, "SELECT hub, count(*) FROM builds WHERE outcome = 'done' GROUP BY hub ORDER BY hub") == [
        ("one", 15),
        ("two", 15),
    ]
    joined = rows(file, f"SELECT user FROM build_users WHERE build_id = {shared[0]} AND user != 'ada'")
    assert sorted(joined) == sorted((f"user{number}",) for number in range(15))


async def test_a_hub_that_is_killed_while_it_writes_leaves_builds_that_can_be_marked(file):
    writer = start_writer(file, "killed", 100_000)
    let_go(writer, int(writer.stdout.readline()))
    for _ in range(10):
        last = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    ledger = SqlLedger(f"sqlite:///{file}")
    assert (await ledger.build(last)).outcome is Outcome.DONE
    assert (await ledger.build(last)).users == ("killed", "bob")
    assert len(await ledger.interrupt_builds(hub="killed")) <= 1
    assert len(await ledger.interrupt_builds(hub="shared")) == 1
    await ledger.close()
    assert rows(file, "PRAGMA integrity_check") == [("ok",)]
    assert rows(file, "SELECT count(*) FROM builds WHERE outcome = 'running'") == [(0,)]
    assert rows(file, "SELECT count(*) FROM builds WHERE outcome = 'done' AND length(log) != 100000") == [(0,)]
    orphans = "SELECT count(*) FROM build_users LEFT JOIN builds ON builds.id = build_id WHERE builds.id IS NULL"
    assert rows(file, orphans) == [(0,)]
    # Each build has somebody who asked for it: both are written at once.
    lonely = "SELECT count(*) FROM builds WHERE id NOT IN (SELECT build_id FROM build_users)"
    assert rows(file, lonely) == [(0,)]
