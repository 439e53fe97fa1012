"""The cache at its limit: what goes first, what never goes, and who may look at the same time."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from prebuilt_spawner.adapters import cache_limit
from prebuilt_spawner.adapters.cache_limit import CacheLimit, enforce, note_use

NOW = time.time()
DAY = 24 * 60 * 60
KB100 = 100 * 1024


def write(path: Path, *, days: float, size: int = KB100) -> Path:
    """A file that was used, and changed, so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    return path


def wheel(cache: Path, key: str, *, days: float) -> Path:
    return write(cache / "wheels" / key[:2] / key / f"{key}-1-py3-none-any.whl", days=days)


def pair(cache: Path, folder: str, key: str, *, days: float) -> tuple[Path, Path]:
    """A body and its index."""
    place = cache / folder / key[:2]
    return write(place / f"{key}.tar", days=days), write(place / f"{key}.json", days=days, size=10)


def limit(cache: Path, max_bytes: int, *, in_use_seconds: float = 1800, clean_uv=lambda folder: None) -> int:
    return enforce(cache, max_bytes=max_bytes, in_use_seconds=in_use_seconds, now=NOW, clean_uv=clean_uv)


def test_below_the_limit_nothing_goes(tmp_path: Path):
    old = wheel(tmp_path, "aa", days=1000)
    assert limit(tmp_path, KB100) == KB100
    assert old.exists()


def test_what_was_used_longest_ago_goes_first_until_there_is_room(tmp_path: Path):
    files = [wheel(tmp_path, f"a{number}", days=10 - number) for number in range(10)]
    left = limit(tmp_path, 5 * KB100)
    there = [file.exists() for file in files]
    assert there == [False] * 6 + [True] * 4, "to nine tenths of the limit, so that not each build removes something"
    assert left == 4 * KB100


def test_a_wheel_that_was_built_goes_with_all_that_is_beside_it(tmp_path: Path):
    """And one that is being made stays."""
    folder = tmp_path / "built" / "aa" / "aa"
    parts = [write(folder / name, days=5) for name in ("demo-1-py3-none-any.whl", "log.txt", "made.json")]
    note = write(tmp_path / "built" / "bb" / "bb.toml", days=5)
    making = write(tmp_path / "built" / ".new-cc" / "demo-1-py3-none-any.whl", days=0.5)
    limit(tmp_path, KB100)
    assert not any(file.exists() for file in (*parts, note))
    assert making.exists()


def test_wheels_and_what_was_made_of_them_are_one_row(tmp_path: Path):
    kept_wheel = wheel(tmp_path, "aa", days=1)
    old_body, old_index = pair(tmp_path, "installed", "ab", days=3)
    older_body, older_index = pair(tmp_path, "fragments", "ac", days=4)
    limit(tmp_path, 2 * KB100)
    assert kept_wheel.exists()
    assert not any(file.exists() for file in (old_body, old_index, older_body, older_index))


def test_a_body_and_its_index_go_together_by_the_later_use_of_the_two(tmp_path: Path):
    body, index = pair(tmp_path, "fragments", "ab", days=9)
    note_use(index)
    other = wheel(tmp_path, "aa", days=3)
    limit(tmp_path, int(1.2 * KB100), in_use_seconds=0)
    assert (body.exists(), index.exists(), other.exists()) == (True, True, False)


def test_what_a_build_may_be_using_stays_even_beyond_the_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    used = [wheel(tmp_path, f"a{number}", days=0) for number in range(3)]
    old = wheel(tmp_path, "b0", days=1)
    assert limit(tmp_path, KB100) == 3 * KB100
    assert all(file.exists() for file in used)
    assert not old.exists()
    assert "more than max_cache_bytes" in caplog.text


def test_a_use_moves_a_file_to_the_end_of_the_row_and_changes_nothing_else(tmp_path: Path):
    first, second = wheel(tmp_path, "aa", days=5), wheel(tmp_path, "ab", days=4)
    changed = first.stat().st_mtime
    note_use(first)
    assert first.stat().st_mtime == changed
    assert first.stat().st_atime == pytest.approx(time.time(), abs=60)
    limit(tmp_path, int(1.2 * KB100), in_use_seconds=0)
    assert (first.exists(), second.exists()) == (True, False)


def test_a_use_of_what_is_not_there_is_none(tmp_path: Path):
    note_use(tmp_path / "absent", tmp_path / "absent" / "too")


def test_what_is_used_between_the_look_and_its_removal_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = wheel(tmp_path, "aa", days=5)
    really = cache_limit._removed

    def used_just_now(entry):
        note_use(file)
        return really(entry)

    monkeypatch.setattr(cache_limit, "_removed", used_just_now)
    limit(tmp_path, 1)
    assert file.exists()


def test_what_is_being_written_stays_for_a_day(tmp_path: Path):
    fresh = write(tmp_path / "wheels/aa/aa/.new-fresh", days=0.9)
    stale = write(tmp_path / "wheels/ab/ab/.new-stale", days=1.1)
    stale_body = write(tmp_path / "fragments/ab/.new-stale", days=1.1)
    folder = tmp_path / "base-metadata/.new-folder"
    write(folder / "file", days=2)
    os.utime(folder, (NOW - 2 * DAY, NOW - 2 * DAY))
    limit(tmp_path, 10 * KB100)
    assert fresh.exists()
    assert not any(path.exists() for path in (stale, stale_body, folder))
    limit(tmp_path, 1)
    assert fresh.exists()


def test_what_is_known_of_bases_and_what_is_not_ours_stays(tmp_path: Path):
    files = [
        write(tmp_path / "probes" / "a.json", days=1000),
        write(tmp_path / "base-metadata" / "ab" / "x.whl", days=1000),
        write(tmp_path / "notes.txt", days=1000),
    ]
    limit(tmp_path, 1)
    assert all(file.exists() for file in files)


def test_uvs_cache_counts_and_is_emptied_only_where_the_rest_is_not_enough(tmp_path: Path):
    answer, calls = write(tmp_path / "uv" / "simple" / "x.rkyv", days=1), []

    def clean(folder: Path) -> None:
        calls.append(folder)
        answer.unlink()

    wheel(tmp_path, "aa", days=5)
    assert limit(tmp_path, int(1.5 * KB100), clean_uv=clean) == KB100
    assert calls == []
    assert limit(tmp_path, KB100 // 2, clean_uv=clean) == 0
    assert calls == [tmp_path / "uv"]


def test_uv_itself_empties_its_cache(tmp_path: Path):
    from prebuilt_spawner.adapters.uv_cache import clean_uv_cache

    answer = write(tmp_path / "uv" / "simple-v18" / "x.rkyv", days=1)
    clean_uv_cache(tmp_path / "uv")
    assert not answer.exists()


def test_a_file_with_two_names_counts_once(tmp_path: Path):
    (tmp_path / "uv").mkdir()
    file = write(tmp_path / "uv" / "one", days=1)
    os.link(file, tmp_path / "uv" / "two")
    assert limit(tmp_path, 10 * KB100) == KB100


def test_the_folder_of_a_wheel_that_went_goes_later(tmp_path: Path):
    """Somebody may be about to download it again."""
    folder = wheel(tmp_path, "aa", days=5).parent
    other = wheel(tmp_path, "ab", days=0)
    limit(tmp_path, KB100)
    assert list(folder.iterdir()) == []
    os.utime(folder, (NOW - 2 * DAY, NOW - 2 * DAY))
    limit(tmp_path, 1)
    assert not folder.exists()
    assert other.exists()


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path):
    assert limit(tmp_path / "absent", 1) == 0


def test_several_may_look_at_one_folder_at_once(tmp_path: Path):
    """As several hubs do, while wheels are added: nobody fails, and what was added stays."""
    for number in range(200):
        write(tmp_path / "wheels" / f"{number % 7}" / f"{number}" / "x.whl", days=5, size=4096)
    failures, added = [], []

    def look() -> None:
        try:
            for _ in range(5):
                limit(tmp_path, 50 * 4096)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    added += [write(tmp_path / "wheels" / f"n{number}" / "n" / "x.whl", days=0, size=4096) for number in range(30)]
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(file.exists() for file in added)
    assert limit(tmp_path, 50 * 4096) <= 50 * 4096


# -- looking now and then ----------------------------------------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that looked."""
    found: list[threading.Thread] = []
    monkeypatch.setattr(
        cache_limit, "enforce", lambda *arguments, **more: found.append(threading.current_thread()) or 0
    )
    return found


async def test_after_a_build_the_folder_is_looked_at_on_another_thread_once_in_a_while(tmp_path: Path, looks):
    limit = CacheLimit(tmp_path, max_bytes=1, in_use_seconds=1)
    for _ in range(5):
        limit.after_build()
        await limit.idle()
    assert len(looks) == 1
    assert looks[0] is not threading.main_thread()
    await limit.close()


async def test_it_is_looked_at_again_when_the_time_has_passed(tmp_path: Path, looks):
    limit = CacheLimit(tmp_path, max_bytes=1, in_use_seconds=1, look_seconds=0)
    for _ in range(3):
        limit.after_build()
        await limit.idle()
    await limit.close()
    limit.after_build()
    await limit.idle()
    assert len(looks) == 3, "none after it was closed"


async def test_without_a_limit_nobody_looks(tmp_path: Path, looks):
    limit = CacheLimit(tmp_path, max_bytes=0, in_use_seconds=1)
    limit.after_build()
    await limit.idle()
    assert looks == []
    await limit.close()


async def test_a_look_that_takes_long_delays_nobody_and_is_not_begun_twice(tmp_path: Path, monkeypatch):
    go, begun = threading.Event(), []

    def slow(*arguments, **more) -> int:
        begun.append(1)
        go.wait(30)
        return 0

    monkeypatch.setattr(cache_limit, "enforce", slow)
    limit = CacheLimit(tmp_path, max_bytes=1, in_use_seconds=1, look_seconds=0)
    limit.after_build()
    while not begun:
        await asyncio.sleep(0.001)
    limit.after_build()
    go.set()
    await limit.idle()
    assert len(begun) == 1
    await limit.close()


async def test_what_goes_wrong_is_in_the_log_and_nowhere_else(tmp_path: Path, monkeypatch, caplog):
    def fail(*arguments, **more) -> int:
        raise PermissionError("not yours")

    monkeypatch.setattr(cache_limit, "enforce", fail)
    limit = CacheLimit(tmp_path, max_bytes=1, in_use_seconds=1)
    limit.after_build()
    await limit.idle()
    assert "not yours" in caplog.text
    await limit.close()
