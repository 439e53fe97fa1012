"""Rows with many requests: the same at once, different ones at once, a class, a patched base; and one that fails."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from prebuilt_spawner.environment.lock import Lock
from prebuilt_spawner.errors import PrebuiltError

from . import workloads
from .bench import Bench, Contestant, hashes
from .checks import flaw_of_image
from .contestants import BuildFailed, dockerfile_names, dockerfile_pip
from .ours import Ours, folder_bytes, new_folder, ours
from .results import OURS, Row, Sample, Target
from .rows import PIP
from .threads import in_thread

SAME_USERS = 20
SAME_LIST = ("pandas", "matplotlib")
PATCHED = 50
ALONE = "one alone"


async def same_at_once(bench: Bench) -> Row:
    """B7: twenty users want the same new list."""
    lock = bench.lock(SAME_LIST)
    row = bench.row(
        "B7",
        f"{SAME_USERS} users, {' and '.join(SAME_LIST)}, at once; the last one's wait until the image is there",
        "Cold: wheels, caches, the list",
        targets=(Target(against=ALONE, at_most=1.3),),
    )

    def waiting(users: int) -> Contestant:
        async def measured(repetition: int) -> Sample:
            word = bench.word("ours")
            repository, index = f"{bench.engine.repository}-{word}", bench.mirror.index_url(word)
            with new_folder(bench.folder) as folder:
                async with ours(bench.engine, folder=folder, index_url=index, repository=repository) as hub:
                    made = await asyncio.gather(*(hub.make(SAME_LIST, user=f"user{number}") for number in range(users)))
                builds = _builds(folder)
            slowest = max(made, key=lambda each: each.seconds)
            sample = await bench.checked_ours(slowest, lock, index_word=word)
            # The empty list's is one more, which a hub has from its start here.
            flaw = sample.flaw or ("" if builds == 2 else f"{builds - 1} builds ran instead of one")
            return Sample(value=sample.value, flaw=flaw, disk_bytes=sample.disk_bytes, steps=sample.steps)

        return measured

    return await bench.measure(row, {OURS: waiting(SAME_USERS), ALONE: waiting(1)})


async def different_at_once(bench: Bench) -> Row:
    """B8: eight users want different lists; each one's wait is a measurement."""
    row = bench.row(
        "B8",
        f"{len(workloads.DIFFERENT)} different lists at once; the wait of each",
        "Cold: wheels, caches, the lists",
    )
    word = bench.word("ours")
    repository, index = f"{bench.engine.repository}-{word}", bench.mirror.index_url(word)
    with new_folder(bench.folder) as folder:
        async with ours(bench.engine, folder=folder, index_url=index, repository=repository) as hub:
            made = await asyncio.gather(*(hub.make(packages) for packages in workloads.DIFFERENT))
    for packages, built in zip(workloads.DIFFERENT, made, strict=True):
        flaw = await in_thread(
            flaw_of_image, bench.engine, built.environment.image, bench.lock(packages), bytecode=True
        )
        row.add(OURS, Sample(value=built.seconds, flaw=flaw))
    waits = sorted(built.seconds for built in made)
    row.remarks.append(f"ours: p50 {_part(waits, 0.5):.1f} s, p95 {_part(waits, 0.95):.1f} s")
    for built in made:
        await in_thread(bench.engine.remove, built.environment.image)

    async def pip(packages: Sequence[str]) -> Sample:
        lock, tag = bench.lock(packages), bench.word("pip")
        one = await in_thread(
            dockerfile_pip, bench.engine, lock, index_url=bench.mirror.index_url(tag), tag=tag, bytecode=True
        )
        return await bench.checked(one.image, lock, seconds=one.seconds, index_word=tag)

    samples = await asyncio.gather(*(pip(packages) for packages in workloads.DIFFERENT), return_exceptions=True)
    for sample in samples:
        row.add(PIP, sample if isinstance(sample, Sample) else Sample(value=0, flaw=str(sample)[-600:]))
    waits = sorted(row.values(PIP))
    row.remarks.append(f"{PIP}: p50 {_part(waits, 0.5):.1f} s, p95 {_part(waits, 0.95):.1f} s")
    return row


async def unresolvable(bench: Bench) -> Row:
    """B10: a list that cannot be resolved, until the user has the message."""
    row = bench.row(
        "B10",
        f"A list that cannot be resolved ({' '.join(workloads.CANNOT_BE_RESOLVED)}), until the message",
        "Warm: the index's pages. Cold: the list, each time",
        targets=(Target(against="", at_most=2.0, of="value"),),
    )
    word = bench.word("ours")
    repository, index = f"{bench.engine.repository}-{word}", bench.mirror.index_url(word)
    with new_folder(bench.folder) as folder:
        async with ours(bench.engine, folder=folder, index_url=index, repository=repository) as hub:

            async def make_ours(repetition: int) -> Sample:
                begun = time.monotonic()
                try:
                    await hub.make(workloads.CANNOT_BE_RESOLVED)
                except PrebuiltError as error:
                    seconds = time.monotonic() - begun
                    named = "numpy" in error.message or "pandas" in error.message
                    return Sample(value=seconds, flaw="" if named else f"it names no package: {error.message}")
                return Sample(value=0, flaw="it was resolved")

            async def pip(repetition: int) -> Sample:
                tag = bench.word("pip")
                begun = time.monotonic()
                try:
                    names = workloads.CANNOT_BE_RESOLVED
                    await in_thread(
                        dockerfile_names, bench.engine, names, index_url=bench.mirror.index_url(tag), tag=tag
                    )
                except BuildFailed:
                    return Sample(value=time.monotonic() - begun)
                return Sample(value=0, flaw="it was resolved")

            await make_ours(0)  # the pages into uv's cache
            return await bench.measure(row, {OURS: make_ours, PIP: pip})


async def a_class(bench: Bench, *, count: int = workloads.CLASS_SIZE) -> Row:
    """B11: a class starts its servers, one after the other; the time of all requests together."""
    requests = workloads.class_requests()[:count]
    row = bench.row(
        "B11",
        f"A class: {len(requests)} requests one after the other, ten popular packages and a tail",
        "Cold: wheels, caches, all lists. (a) keeps the engine's cache of equal lists",
        targets=(Target(against=PIP, at_most=0.10), Target(against=PIP, at_most=0.35, of="disk ratio")),
    )
    word = bench.word("ours")
    repository, index = f"{bench.engine.repository}-{word}", bench.mirror.index_url(word)
    images: dict[str, Lock] = {}
    hits, seconds = 0, 0.0
    with new_folder(bench.folder) as folder:
        async with ours(bench.engine, folder=folder, index_url=index, repository=repository) as hub:
            for request in requests:
                built = await hub.make(request.packages, user=request.user)
                hits += built.environment.image in images
                images[built.environment.image] = built.environment.lock
                seconds += built.seconds
        row.remarks.append(
            f"ours: {hits} of {len(requests)} found their image; beside the engine's disk, the hub's cache takes "
            f"{folder_bytes(folder) / 10**6:.0f} MB"
        )
    row.add(OURS, await _of_all(bench, images, seconds))
    row.samples[PIP] = [await _class_by_pip(bench, requests)]
    return row


async def _class_by_pip(bench: Bench, requests: Sequence[workloads.ClassRequest]) -> Sample:
    """An administrator's script that builds each list, sorted, so that equal ones are found."""
    word = bench.word("pip")
    index = bench.mirror.index_url(word)
    seconds, images = 0.0, {}
    for number, request in enumerate(requests):
        lock = bench.lock(request.packages)
        try:
            made = await in_thread(
                dockerfile_pip, bench.engine, lock, index_url=index, tag=f"{word}-{number}", bytecode=True, again=True
            )
        except BuildFailed as error:
            return Sample(value=seconds, flaw=str(error)[-600:])
        images[made.image] = lock
        seconds += made.seconds
    return await _of_all(bench, images, seconds)


async def _of_all(bench: Bench, images: dict[str, Lock], seconds: float) -> Sample:
    """Each image looked into, where it is not one that was; what they take together; and away with them."""
    flaw, seen = "", set()
    disk_bytes = await in_thread(bench.engine.disk_bytes, list(images))
    for image, lock in images.items():
        if hashes(lock) not in seen and not flaw:
            flaw = await in_thread(flaw_of_image, bench.engine, image, lock, bytecode=True)
            flaw = f"{image}: {flaw}" if flaw else ""
        seen.add(hashes(lock))
    for image in images:
        await in_thread(bench.engine.remove, image)
    return Sample(value=seconds, flaw=flaw, disk_bytes=disk_bytes)


async def patched_base(bench: Bench, *, count: int = PATCHED) -> Row:
    """B13: a base is replaced, and everybody's environment is made on the new one."""
    lists = workloads.patched_base_lists(PATCHED)[:count]
    row = bench.row(
        "B13",
        f"A patched base under {count} environments",
        "Cold: the new base, of which the hub knows nothing. Warm: wheels and fragments",
        targets=(Target(against="", at_most=60.0, of="value"),),
    )
    word = bench.word("ours")
    repository, index = f"{bench.engine.repository}-{word}", bench.mirror.index_url(word)
    base = bench.engine.name(f"{word}-base")
    await in_thread(bench.engine.commit, bench.engine.base, f"{word}-base", files={"/etc/release-of-base": b"1"})
    with new_folder(bench.folder) as folder:
        async with ours(bench.engine, folder=folder, index_url=index, repository=repository, base=base) as hub:
            before = await _all(hub, lists, base)
            await in_thread(
                bench.engine.commit, bench.engine.base, f"{word}-base", files={"/etc/release-of-base": b"2"}
            )
            begun = time.monotonic()
            after = await _all(hub, lists, base)
            seconds = time.monotonic() - begun
    changed = [one for one, other in zip(before, after, strict=True) if one[0] == other[0] or one[1] != other[1]]
    flaw = f"{len(changed)} environments are on the old base, or have other packages than before" if changed else ""
    image, lock = after[0]
    flaw = flaw or await in_thread(flaw_of_image, bench.engine, image, lock, bytecode=True)
    row.add(OURS, Sample(value=seconds, flaw=flaw))
    for image, _ in (*before, *after):
        await in_thread(bench.engine.remove, image)
    return row


async def _all(hub: Ours, lists: Sequence[Sequence[str]], base: str) -> list[tuple[str, Lock]]:
    made = await asyncio.gather(*(hub.make(packages, base=base) for packages in lists))
    return [(built.environment.image, built.environment.lock) for built in made]


def _builds(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as ledger:
        found: int = ledger.execute("SELECT count(*) FROM builds").fetchone()[0]
        return found


def _part(values: Sequence[float], share: float) -> float:
    """The value below which this share of sorted values is."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0
