"""What a ledger promises of what users chose lately."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.ledger import SqlLedger, migrations

BEGIN = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)


class Clock:
    """Time that passes a minute at each look."""

    def __init__(self) -> None:
        self.time = BEGIN

    def __call__(self) -> datetime:
        self.time += timedelta(minutes=1)
        return self.time


@pytest.fixture
async def ledger(ledger_url: str) -> AsyncIterator[SqlLedger]:
    ledger = SqlLedger(ledger_url, now=Clock())
    yield ledger
    await ledger.close()


async def choose(ledger: SqlLedger, user: str, *choices: dict) -> None:
    for options in choices:
        await ledger.record_environment(
            digest="d" * 64, base_digest="base", lock=Lock(), size_bytes=1, user=user, options=options
        )


async def test_choices_come_newest_first_and_each_user_has_their_own(ledger):
    await choose(ledger, "ada", {"packages": ["numpy"]}, {"profile": "data"}, {"image": "small"})
    await choose(ledger, "bob", {"packages": ["pandas"]})
    assert await ledger.recent(user="ada") == [{"image": "small"}, {"profile": "data"}, {"packages": ["numpy"]}]
    assert await ledger.recent(user="bob") == [{"packages": ["pandas"]}]
    assert await ledger.recent(user="eve") == []
    assert await ledger.recent(user="ada", limit=2) == [{"image": "small"}, {"profile": "data"}]
    assert await ledger.recent(user="ada", limit=0) == []


async def test_what_means_the_same_is_there_once_as_it_was_written_last(ledger):
    spellings = (
        {"packages": ["NumPy", "pandas>=2"]},
        {"profile": "data"},
        {"packages": "pandas >= 2\nnumpy", "image": "", "refresh": True},
    )
    await choose(ledger, "ada", *spellings)
    assert await ledger.recent(user="ada") == [
        {"packages": "pandas >= 2\nnumpy", "image": ""},
        {"profile": "data"},
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"refresh": True},
        {"packages": []},
        {"packages": "\n", "profile": None, "image": ""},
        {"packages": object()},
        {"packages": ["x" * 200_000]},
    ],
)
async def test_what_chooses_nothing_or_cannot_be_kept_is_not_kept_and_the_use_counts(ledger, options):
    await choose(ledger, "ada", options)
    assert await ledger.recent(user="ada") == []
    assert await ledger.last_uses(["d" * 64]) != {}


async def test_no_more_than_twenty_are_kept(ledger):
    await choose(ledger, "ada", *({"profile": f"p{number}"} for number in range(30)))
    await choose(ledger, "bob", {"profile": "p0"})
    found = await ledger.recent(user="ada", limit=100)
    assert [options["profile"] for options in found] == [f"p{number}" for number in range(29, 9, -1)]
    assert await ledger.recent(user="bob") == [{"profile": "p0"}]


@pytest.mark.parametrize("zone", [None, timezone.utc, timezone(timedelta(hours=5))])
async def test_what_an_earlier_user_of_the_name_chose_is_left_out(ledger, zone):
    """JupyterHub keeps the time without a zone, in UTC."""
    await choose(ledger, "ada", {"profile": "old"}, {"profile": "older"})
    made = BEGIN + timedelta(minutes=2, seconds=30)
    await choose(ledger, "ada", {"profile": "new"})
    since = made.replace(tzinfo=None) if zone is None else made.astimezone(zone)
    assert await ledger.recent(user="ada", since=since) == [{"profile": "new"}]
    await choose(ledger, "ada", {"profile": "old"})
    assert await ledger.recent(user="ada", since=since) == [{"profile": "old"}, {"profile": "new"}]


@pytest.mark.parametrize("user", ["Robert'); DROP TABLE choices;--", "a" * 600, "zoë \N{SNOWMAN}", "nul\0", "\udc80"])
async def test_any_user_name_is_only_a_name(ledger, user):
    await choose(ledger, user, {"profile": "data"})
    assert await ledger.recent(user=user) == [{"profile": "data"}]


async def test_many_starts_of_one_user_at_once_are_one_choice(ledger):
    await asyncio.gather(*(choose(ledger, "ada", {"packages": ["numpy"]}) for _ in range(20)))
    assert await ledger.recent(user="ada") == [{"packages": ["numpy"]}]


async def test_a_choice_that_the_database_refuses_harms_no_use_of_the_environment(tmp_path):
    file = tmp_path / "ledger.sqlite"
    ledger = SqlLedger(f"sqlite:///{file}")
    await ledger.open()
    connection = sqlite3.connect(file)
    connection.execute("CREATE TRIGGER no BEFORE INSERT ON choices BEGIN SELECT RAISE(ABORT, 'no'); END")
    connection.commit()
    connection.close()
    await choose(ledger, "ada", {"profile": "data"}, {"profile": "data"})
    assert await ledger.recent(user="ada") == []
    assert list(await ledger.last_uses(["d" * 64])) == ["d" * 64]
    await ledger.close()


async def test_a_ledger_of_the_schema_before_keeps_what_it_knows(tmp_path):
    file = tmp_path / "ledger.sqlite"
    engine = create_engine(f"sqlite:///{file}", poolclass=NullPool)
    with engine.begin() as connection:
        migrations.upgrade(connection, "0003")
        connection.execute(
            text(
                "INSERT INTO environments (digest, base_digest, packages, size_bytes, created_at, last_used_at, uses) "
                f"VALUES ('{'d' * 64}', 'base', '[]', 1, '2030-01-01', '2030-01-01', 5)"
            )
        )
    ledger = SqlLedger(f"sqlite:///{file}")
    await choose(ledger, "ada", {"profile": "data"})
    assert await ledger.recent(user="ada") == [{"profile": "data"}]
    await ledger.close()
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT uses FROM environments").fetchall() == [(6,)]
    assert connection.execute("SELECT user, uses FROM choices").fetchall() == [("ada", 1)]
    connection.close()
