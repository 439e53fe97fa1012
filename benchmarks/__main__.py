"""Measures, beside what an administrator would do instead, and writes a table: `make bench`, `make bench-quick`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import secrets
import shutil
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from .bench import Bench
from .engine import BenchEngine
from .mirror import Mirror
from .plan import ROWS, Choice, chosen
from .results import Run, markdown

REPETITIONS = 5
QUICK_REPETITIONS = 1


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table, and write it as Markdown and JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rows and repetitions, in less than five minutes")
    parser.add_argument("--rows", default="", help=f"only these, by comma: {', '.join(ROWS)}")
    parser.add_argument("--repetitions", type=int, default=0, help="how often each is measured")
    parser.add_argument("--containerd", default="", help="the address of an engine with the containerd store")
    parser.add_argument("--work", type=Path, default=Path(".dev/bench"), help="a folder for wheels and caches")
    parser.add_argument("--out", type=Path, default=Path(".dev/bench/results"), help="a folder for the tables")
    given = parser.parse_args(arguments)
    base = os.environ.get("PREBUILT_SPAWNER_TEST_BASE", "")
    if not base:
        parser.error("PREBUILT_SPAWNER_TEST_BASE names no base image: use `make bench`")
    repetitions = given.repetitions or (QUICK_REPETITIONS if given.quick else REPETITIONS)
    choice = Choice(keys=tuple(filter(None, given.rows.split(","))), quick=given.quick, repetitions=repetitions)
    run = Run(machine=_machine(), load_before=os.getloadavg()[0])
    engines = ["", *filter(None, [given.containerd])]
    given.work.mkdir(parents=True, exist_ok=True)
    stopped = False
    try:
        asyncio.run(_until_stopped(_measured(run, engines, base, choice, given.work.absolute())))
    except asyncio.CancelledError:
        stopped = True
    finally:
        # What was measured before somebody pressed Ctrl-C is worth something, too.
        run.load_after = os.getloadavg()[0]
        given.out.mkdir(parents=True, exist_ok=True)
        name = "quick" if given.quick else "bench"
        (given.out / f"{name}.json").write_text(json.dumps(run.as_json(), indent=1) + "\n")
        (given.out / f"{name}.md").write_text(markdown(run))
    print(f"\n{markdown(run)}\nIn {given.out}: {name}.md and {name}.json")
    if stopped:
        _tell("Stopped; what this made is removed.")
        return 130
    return 1 if any(row.flaws(name) for row in run.rows for name in row.samples) else 0


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Do it; the first signal to stop cancels it, which cleans up, and further ones change nothing."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop() -> None:
        for each in signals:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_IGN)
        _tell("Stopping, as soon as the build that runs has ended")
        task.cancel()

    for each in signals:
        loop.add_signal_handler(each, stop)
    await task


async def _measured(run: Run, engines: Sequence[str], base: str, choice: Choice, work: Path) -> None:
    with Mirror(work / "index") as mirror:
        for number, url in enumerate(engines):
            engine = BenchEngine(url, base, "b" + secrets.token_hex(4))
            folder = work / f"run-{engine.run}"
            folder.mkdir()
            bench = Bench(engine=engine, mirror=mirror, folder=folder, repetitions=choice.repetitions, tell=_tell)
            _tell(f"Engine {engine.version}, {engine.store} store; what this run makes has the word {engine.run}")
            try:
                await chosen(bench, choice, run.rows, first=number == 0)
            finally:
                await asyncio.shield(asyncio.to_thread(engine.clean_up))
                shutil.rmtree(folder, ignore_errors=True)


def _machine() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "processors": str(os.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "Python": platform.python_version(),
    }


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
