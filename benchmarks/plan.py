"""Which rows there are, and in which order they are measured."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from . import crowd_rows, hub_rows, rows, workloads
from .bench import Bench
from .mirror import local_wheels
from .results import Row, Target
from .threads import in_thread

_GIB = 1024**3
_HEAVY_FREE_BYTES = 15 * _GIB
_SMALL = [(*workloads.W1, small) for small in workloads.SMALL]
_WITHOUT = [tuple(package for package in workloads.W1 if package != left_out) for left_out in workloads.LEFT_OUT]
_OVERLAPPING = [(*workloads.OVERLAPPING, small) for small in workloads.SMALL]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is to be measured.

    Attributes:
        keys: Of rows; none are all.
        quick: Only the rows that are quick.
        repetitions: Of each contestant.
    """

    keys: tuple[str, ...]
    quick: bool
    repetitions: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One row that can be measured.

    Attributes:
        measure: Does it.
        lists: What the index needs for it.
        quick: Whether it belongs to a quick run.
        each_store: Whether it is measured on every engine, and not on the first alone.
    """

    measure: Callable[[Bench], Awaitable[Row]]
    lists: Sequence[tuple[str, ...]]
    quick: bool = False
    each_store: bool = False


def _heavy_list() -> tuple[str, ...]:
    """The build without CUDA where a folder of wheels has one: what the index has needs 3 GB of it."""
    wheels = [wheel.name.split("-")[1] for wheel in local_wheels().get("torch", ()) if "+cpu" in wheel.name]
    return (f"torch=={wheels[-1]}",) if wheels else ()


async def _heavy(bench: Bench) -> Row:
    packages = _heavy_list()
    title = "PyTorch for CPUs and what it needs, nothing cached"
    row = bench.row("B14", title, "")
    if not packages:
        row.not_run[""] = "PIP_FIND_LINKS names no folder with a wheel of torch for CPUs, and the index's brings CUDA"
    elif (free := shutil.disk_usage(bench.folder).free) < _HEAVY_FREE_BYTES:
        row.not_run[""] = f"the disk has {free / _GIB:.0f} GiB free, and it needs {_HEAVY_FREE_BYTES / _GIB:.0f}"
    else:
        return await rows.cold(bench, "B14", title, packages)
    return row


ROWS: dict[str, Plan] = {
    "B0": Plan(measure=hub_rows.ready_images, lists=[hub_rows.LIST], quick=True),
    "B1": Plan(
        measure=lambda bench: rows.cold(bench, "B1", "One small wheel, nothing cached", workloads.ONE_SMALL, hook=True),
        lists=[workloads.ONE_SMALL],
        quick=True,
    ),
    "B2": Plan(
        measure=lambda bench: rows.cold(
            bench,
            "B2",
            "W1, nothing cached",
            workloads.W1,
            hook=True,
            targets=(Target(against=rows.PIP, at_most=0.40), Target(against=rows.UV_COLD, at_most=1.0)),
        ),
        lists=[workloads.W1],
        quick=True,
    ),
    "B2-plain": Plan(
        measure=lambda bench: rows.cold(
            bench,
            "B2-plain",
            "W1 without bytecode, nothing cached",
            workloads.W1,
            bytecode=False,
            targets=(Target(against=rows.PIP, at_most=0.40), Target(against=rows.UV_COLD, at_most=1.0)),
        ),
        lists=[workloads.W1],
    ),
    "B2-slow": Plan(
        measure=lambda bench: rows.cold(
            bench, "B2-slow", "W1, nothing cached, the index behind 100 Mbit/s", workloads.W1, slow=True
        ),
        lists=[workloads.W1],
    ),
    "B3": Plan(measure=lambda bench: rows.warm(bench, "B3"), lists=[workloads.W1], each_store=True),
    "B3-plain": Plan(
        measure=lambda bench: rows.warm(bench, "B3-plain", bytecode=False), lists=[workloads.W1], each_store=True
    ),
    "B4": Plan(
        measure=lambda bench: rows.changed(
            bench,
            "B4",
            "W1 and one small package more",
            _SMALL,
            targets=(Target(against=rows.PIP, at_most=0.03), Target(against="", at_most=0.6, of="value")),
        ),
        lists=[workloads.W1, *_SMALL],
        quick=True,
        each_store=True,
    ),
    "B5": Plan(
        measure=lambda bench: rows.changed(
            bench, "B5", "W1 without one package", _WITHOUT, targets=(Target(against=rows.PIP, at_most=0.15),)
        ),
        lists=[workloads.W1, *_WITHOUT],
    ),
    "B6": Plan(
        measure=lambda bench: rows.changed(
            bench,
            "B6",
            "A list that shares nine wheels in ten with W1, neither in the other",
            _OVERLAPPING,
            targets=(Target(against=rows.PIP, at_most=0.15),),
        ),
        lists=[workloads.W1, *_OVERLAPPING],
    ),
    "B7": Plan(measure=crowd_rows.same_at_once, lists=[crowd_rows.SAME_LIST]),
    "B8": Plan(measure=crowd_rows.different_at_once, lists=workloads.DIFFERENT),
    "B10": Plan(measure=crowd_rows.unresolvable, lists=[workloads.CANNOT_BE_RESOLVED], quick=True),
    "B11": Plan(measure=crowd_rows.a_class, lists=[request.packages for request in workloads.class_requests()]),
    "B12": Plan(measure=rows.first_import, lists=[workloads.W1]),
    "B13": Plan(measure=crowd_rows.patched_base, lists=workloads.patched_base_lists(crowd_rows.PATCHED)),
    "loop": Plan(measure=hub_rows.event_loop, lists=[workloads.W1, crowd_rows.SAME_LIST, *workloads.DIFFERENT]),
    "B14": Plan(measure=_heavy, lists=[packages for packages in [_heavy_list()] if packages]),
}


async def chosen(bench: Bench, choice: Choice, into: list[Row], *, first: bool) -> None:
    """Measure what is chosen, and put each row in as soon as it is done."""
    plans = {
        key: plan
        for key, plan in ROWS.items()
        if (key in choice.keys if choice.keys else plan.quick or not choice.quick) and (first or plan.each_store)
    }
    bench.tell("Having the index get what is asked for (the first time from the network)")
    await bench.prepare([packages for plan in plans.values() for packages in plan.lists])
    await in_thread(bench.mirror.freeze)
    for plan in plans.values():
        into.append(await plan.measure(bench))
