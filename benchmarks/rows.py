"""Rows in which an image is made: one list, cold or warm, and lists that change a little."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prebuilt_spawner.environment.lock import Lock

from . import workloads
from .bench import Bench, Contestant, hashes
from .checks import flaw_of_downloads, import_seconds
from .contestants import Made, buildkit_uv, dockerfile_pip, start_hook
from .ours import new_folder, ours
from .results import OURS, Row, Sample, Target
from .threads import in_thread

PIP = "(a) Dockerfile, pip"
UV_COLD = "(b) BuildKit, uv, empty cache"
UV_WARM = "(b) BuildKit, uv, warm cache"
HOOK = "(c) hook at the start"

_COLD = "Cold: wheels, caches, the list. Warm: the base, which the engine and the hub know"
_W1_IMPORTS = ["pandas", "sklearn.linear_model", "matplotlib.pyplot", "seaborn", "requests", "sqlalchemy", "tqdm"]
_CONTAINERD = "containerd"
_GRAPHDRIVER = "overlay2"


async def cold(
    bench: Bench,
    key: str,
    title: str,
    packages: Sequence[str],
    *,
    slow: bool = False,
    bytecode: bool = True,
    hook: bool = False,
    targets: tuple[Target, ...] = (),
    repetitions: int = 0,
) -> Row:
    """A list of which nothing is there: B1, B2, B14."""
    lock = bench.lock(packages)

    async def make_ours(repetition: int) -> Sample:
        word = bench.word("ours")
        index = bench.mirror.index_url(word, slow=slow)
        repository = f"{bench.engine.repository}-{word}"
        with new_folder(bench.folder) as folder:
            async with ours(
                bench.engine, folder=folder, index_url=index, repository=repository, bytecode=bytecode
            ) as hub:
                built = await hub.make(packages)
            return await bench.checked_ours(built, lock, bytecode=bytecode, index_word=word)

    contestants: dict[str, Contestant] = {
        OURS: make_ours,
        PIP: _pip(bench, lambda _: lock, slow=slow, bytecode=bytecode),
        UV_COLD: _uv_cold(bench, lock, slow=slow, bytecode=bytecode),
    }
    if hook:
        contestants[HOOK] = _hook(bench, lock, slow=slow)
    row = bench.row(key, title, _COLD + ("." if bytecode else "; nobody makes bytecode."), targets=targets)
    return await bench.measure(row, contestants, repetitions=repetitions)


async def warm(bench: Bench, key: str, *, bytecode: bool = True) -> Row:
    """B3: W1, of which every wheel is there; ours has its fragments too, uv's cache what it unpacked."""
    packages, lock = workloads.W1, bench.lock(workloads.W1)
    word = bench.word("ours")
    row = bench.row(
        key,
        "W1, wheels and fragments there",
        "Cold: the list, the image. Warm: (b)'s cache mount, our wheels and fragments, the index's pages (not for (a))",
        targets=(
            Target(against=PIP, at_most=0.25, store=_GRAPHDRIVER),
            Target(against=UV_WARM, at_most=1.0, store=_GRAPHDRIVER),
            Target(against=PIP, at_most=0.20, store=_CONTAINERD),
            Target(against=UV_WARM, at_most=0.5, store=_CONTAINERD),
        ),
    )
    with new_folder(bench.folder) as folder:
        index = bench.mirror.index_url(word)

        def hub(ledger: str):  # noqa: ANN202 - an asynchronous context manager
            repository = f"{bench.engine.repository}-{word}"
            return ours(
                bench.engine, folder=folder, index_url=index, repository=repository, bytecode=bytecode, ledger=ledger
            )

        async with hub("first") as first:
            built = await first.make(packages)
        await in_thread(bench.engine.remove, built.environment.image)
        bench.mirror.served(word)

        async def make_ours(repetition: int) -> Sample:
            async with hub(f"ledger{repetition}") as now:
                built = await now.make(packages)
            return await bench.checked_ours(built, lock, bytecode=bytecode, index_word=word, warm=hashes(lock))

        contestants = {
            OURS: make_ours,
            PIP: _pip(bench, lambda _: lock, bytecode=bytecode),
            UV_WARM: await _uv_warm(bench, lock, lambda _: lock, bytecode=bytecode),
        }
        return await bench.measure(row, contestants)


async def changed(
    bench: Bench, key: str, title: str, lists: Sequence[Sequence[str]], *, targets: tuple[Target, ...]
) -> Row:
    """W1's image is there, and a list is asked for that differs a little, another one each time: B4, B5, B6."""
    word = bench.word("ours")
    row = bench.row(
        key,
        title,
        "Warm: W1's image, wheels and fragments; (b)'s cache mount with W1. Cold: what the list adds",
        targets=targets,
    )

    there = bench.lock(workloads.W1)
    repository, index = f"{bench.engine.repository}-{word}", bench.mirror.index_url(word)

    def lock_of(repetition: int) -> Lock:
        return bench.lock(lists[repetition % len(lists)])

    with new_folder(bench.folder) as folder:
        async with ours(bench.engine, folder=folder, index_url=index, repository=repository) as hub:
            first = await hub.make(workloads.W1)
            bench.mirror.served(word)
            depth = len(bench.engine.bases[0])

            async def make_ours(repetition: int) -> Sample:
                built = await hub.make(lists[repetition % len(lists)])
                own, theirs = (bench.engine.layers(each.environment.image)[depth:] for each in (built, first))
                shared = sum(1 for one, other in zip(own, theirs, strict=False) if one == other)
                row.remarks.append(f"of {len(own)} layers of ours {shared} were there")
                return await bench.checked_ours(built, lock_of(repetition), index_word=word, warm=hashes(there))

            contestants = {
                OURS: make_ours,
                PIP: _pip(bench, lock_of),
                UV_WARM: await _uv_warm(bench, there, lock_of),
            }
            await bench.measure(row, contestants)
    await in_thread(bench.engine.remove, first.environment.image)
    return row


async def first_import(bench: Bench) -> Row:
    """B12: the first import of W1's packages, in a new container of each image."""
    lock = bench.lock(workloads.W1)
    word, tag = bench.word("ours"), bench.word("pip")
    row = bench.row(
        "B12",
        "First import of W1's packages in a new container",
        "Warm: the page cache. Cold: the process",
        targets=(Target(against=PIP, at_most=1.05),),
    )
    repository, index = f"{bench.engine.repository}-{word}", bench.mirror.index_url(word)
    with new_folder(bench.folder) as folder:
        async with ours(bench.engine, folder=folder, index_url=index, repository=repository) as hub:
            our_image = (await hub.make(workloads.W1)).environment.image
        theirs = await in_thread(
            dockerfile_pip, bench.engine, lock, index_url=bench.mirror.index_url(tag), tag=tag, bytecode=True
        )

        def importing(image: str) -> Contestant:
            async def measured(repetition: int) -> Sample:
                return Sample(value=await in_thread(import_seconds, bench.engine, image, _W1_IMPORTS))

            return measured

        contestants = {OURS: importing(our_image), PIP: importing(theirs.image)}
        for contestant in contestants.values():
            await contestant(0)  # into the page cache, each
        row = await bench.measure(row, contestants)
        for image in (our_image, theirs.image):
            await in_thread(bench.engine.remove, image)
        return row


def _pip(bench: Bench, lock_of: Callable[[int], Lock], *, slow: bool = False, bytecode: bool = True) -> Contestant:
    """(a), of the lock of each repetition."""

    async def measured(repetition: int) -> Sample:
        lock, word = lock_of(repetition), bench.word("pip")
        index = bench.mirror.index_url(word, slow=slow)
        made = await in_thread(dockerfile_pip, bench.engine, lock, index_url=index, tag=word, bytecode=bytecode)
        return await bench.checked(made.image, lock, seconds=made.seconds, index_word=word, bytecode=bytecode)

    return measured


def _uv_cold(bench: Bench, lock: Lock, *, slow: bool, bytecode: bool) -> Contestant:
    """(b) with a cache mount that is new each time."""

    async def measured(repetition: int) -> Sample:
        word = bench.word("uv")
        made = await _with_uv(bench, lock, word, tag=word, slow=slow, bytecode=bytecode)
        return await bench.checked(made.image, lock, seconds=made.seconds, index_word=word, bytecode=bytecode)

    return measured


async def _uv_warm(bench: Bench, there: Lock, lock_of: Callable[[int], Lock], *, bytecode: bool = True) -> Contestant:
    """(b), of the lock of each repetition, with a cache mount that has another one's wheels."""
    word = bench.word("uv")
    first = await _with_uv(bench, there, word, tag=f"{word}-first", bytecode=bytecode)
    await in_thread(bench.engine.remove, first.image)
    bench.mirror.served(word)

    async def measured(repetition: int) -> Sample:
        lock = lock_of(repetition)
        made = await _with_uv(bench, lock, word, tag=f"{word}-{repetition}", bytecode=bytecode)
        return await bench.checked(
            made.image, lock, seconds=made.seconds, index_word=word, bytecode=bytecode, warm=hashes(there)
        )

    return measured


async def _with_uv(bench: Bench, lock: Lock, word: str, *, tag: str, bytecode: bool, slow: bool = False) -> Made:
    return await in_thread(
        buildkit_uv,
        bench.engine,
        lock,
        base_with_uv=bench.base_with_uv(),
        index_url=bench.mirror.index_url(word, slow=slow),
        tag=tag,
        bytecode=bytecode,
        cache=word,
    )


def _hook(bench: Bench, lock: Lock, *, slow: bool) -> Contestant:
    """(c), which leaves no image that could be looked into: that it worked is seen by how it ended."""

    async def measured(repetition: int) -> Sample:
        word = bench.word("hook")
        index = bench.mirror.index_url(word, slow=slow)
        made = await in_thread(start_hook, bench.engine, lock, index_url=index)
        return Sample(value=made.seconds, flaw=flaw_of_downloads(bench.mirror.served(word), lock, warm=()))

    return measured
