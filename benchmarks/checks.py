"""Whether a contestant did what it was measured for. What did not is reported as invalid, and counts for nothing."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from prebuilt_spawner.environment.lock import Lock

from .engine import BenchEngine

_SCRIPT = Path(__file__).with_name("check_script.py")
_MOST_COMPILED_BY_CHANCE = 0.02
_LEAST_COMPILED = 0.95
"""A few modules of some wheels are templates that cannot be compiled."""
_INTERPRETER = "python"


def flaw_of_image(engine: BenchEngine, image: str, lock: Lock, *, bytecode: bool) -> str:
    """Why an image is not what was to be made; "" where it is.

    Each of the lock's packages has its version and can be imported, `pip check` finds nothing that it does not find in
    the base, and bytecode is there or not, as the comparison wants it.
    """
    report = _report(engine, image, dict(lock.pins))
    if isinstance(report, str):
        return report
    usual = _report(engine, engine.base, {})
    return flaw_of_report(
        report, lock, bytecode=bytecode, usual_lines=() if isinstance(usual, str) else usual["pip_check"]
    )


def flaw_of_report(
    report: Mapping[str, Any], lock: Lock, *, bytecode: bool, usual_lines: tuple[str, ...] | list[str]
) -> str:
    """The same of what `check_script` printed. Pure."""
    for name, version in lock.pins.items():
        present = report["found"].get(name)
        if present != version:
            return f"{name} {version} is not in it" if present is None else f"{name} is {present} instead of {version}"
    for module, error in report["failures"].items():
        return f"{module} cannot be imported: {error}"
    if lock.wheels and not report["imported"]:
        return "nothing of it can be imported"
    for line in report["pip_check"]:
        if line not in usual_lines:
            return f"pip check: {line}"
    share = report["compiled"] / report["sources"] if report["sources"] else None
    if share is not None and bytecode and share < _LEAST_COMPILED:
        return f"only {share:.0%} of its modules have bytecode"
    if share is not None and not bytecode and share > _MOST_COMPILED_BY_CHANCE:
        return f"{share:.0%} of its modules have bytecode, and none should"
    return ""


def flaw_of_downloads(served: Mapping[str, int], lock: Lock, *, warm: Collection[str]) -> str:
    """Whether wheels came from where they had to, by what the contestant's index has sent.

    Pure. Each wheel that was not to be there has to have been fetched, whole, and none that was: else the contestant
    took another's cache, or was not as warm as it is said to be.

    Args:
        served: Bytes by file name, while it was measured.
        lock: What was installed.
        warm: SHA-256 of the wheels that were there before.
    """
    for wheel in lock.wheels:
        # Less than all of it is metadata, read out of the archive.
        fetched = served.get(wheel.filename, 0) >= (wheel.size_bytes or 1)
        if wheel.sha256 not in warm and not fetched:
            return f"{wheel.filename} did not come from its index: it had another's"
        if wheel.sha256 in warm and fetched:
            return f"{wheel.filename} was fetched again, though it was to be there"
    return ""


def import_seconds(engine: BenchEngine, image: str, modules: list[str]) -> float:
    """How long the first import of modules takes in a new container of an image."""
    ran = engine.run_in(image, [_INTERPRETER, "-c", _SCRIPT.read_text(), json.dumps(modules)])
    if ran.status != 0:
        raise RuntimeError(f"{image}: {ran.output[-500:]}")
    return float(ran.output.splitlines()[-1])


def _report(engine: BenchEngine, image: str, wanted: Mapping[str, str]) -> dict[str, Any] | str:
    command = [_INTERPRETER, "-c", _SCRIPT.read_text(), json.dumps(wanted)]
    ran = engine.run_in(image, command)
    if ran.status != 0:
        return f"it cannot be looked into: {ran.output[-300:]}"
    report: dict[str, Any] = json.loads(ran.output.splitlines()[-1])
    return report
