"""The import direction, and what the pure parts may not know, read from the source of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import prebuilt_spawner

PACKAGE = Path(prebuilt_spawner.__file__).parent
NAME = "prebuilt_spawner"

# cli -> hub; hub, service, cli -> adapters, ledger, metrics -> build -> image, environment -> errors
PURE = {"errors"}
CORE = {"build", "image", "environment", "errors", "_version"}
OUTER = CORE | {"adapters", "ledger", "metrics"}
MAY_IMPORT: dict[str, set[str]] = {
    "_version": set(),
    "errors": set(),
    "environment": PURE,
    "image": PURE | {"environment"},
    "build": CORE - {"build"},
    "adapters": CORE,
    "ledger": CORE,
    "metrics": CORE,
    "hub": OUTER,
    "service": OUTER,
    # It reads the hub's configuration, and so knows the hub's settings.
    "cli": OUTER | {"hub"},
    "__init__": OUTER | {"hub"},
}
"""What each part may import besides itself."""

SURROUNDINGS = {"docker", "dockerspawner", "jupyterhub", "asyncio", "requests", "sqlalchemy", "socket", "subprocess"}
MAY_NOT_IMPORT: dict[str, set[str]] = {
    "environment": SURROUNDINGS,
    "image": SURROUNDINGS,
    "build": {"docker", "dockerspawner", "jupyterhub"},
}
"""Libraries that a part does without."""

MAX_LINES = 400
LONGER: dict[str, int] = {}
"""Modules that may be longer, by path in the package: how long, and with a comment why."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def path_of(module: Path) -> str:
    return module.relative_to(PACKAGE).as_posix()


def part_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(module: Path) -> Iterator[str]:
    """The absolute names of everything that a module imports, wherever the import stands; for `from a import b`
    both `a` and `a.b`, since `b` may be a module."""
    package = [NAME, *module.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(module.read_text("utf-8"), filename=str(module))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def imported_parts(module: Path) -> set[str]:
    """The parts of this package that a module imports."""
    names = (name.split(".") for name in imported(module))
    own = {name[1] for name in names if name[0] == NAME and len(name) > 1}
    # `from . import x` in the top package may also name a value; those are nobody's parts.
    return {part for part in own if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()}


def test_there_are_modules_to_look_at():
    assert {part_of(module) for module in MODULES} >= {"errors", "environment", "image", "build", "adapters", "ledger"}


@pytest.mark.parametrize("module", MODULES, ids=path_of)
def test_imports_point_one_way(module):
    """cli -> hub; hub, service, cli -> adapters, ledger, metrics -> build -> image, environment -> errors."""
    part = part_of(module)
    assert part in MAY_IMPORT, f"{part} has no place in the architecture yet"
    wrong = imported_parts(module) - MAY_IMPORT[part] - {part}
    assert not wrong, f"{path_of(module)} may not import {sorted(wrong)}"


@pytest.mark.parametrize("module", [m for m in MODULES if part_of(m) in MAY_NOT_IMPORT], ids=path_of)
def test_the_core_does_not_know_the_surroundings(module):
    """No I/O in environment/ and image/; no engine and no hub in build/."""
    libraries = {name.partition(".")[0] for name in imported(module)}
    wrong = libraries & MAY_NOT_IMPORT[part_of(module)]
    assert not wrong, f"{path_of(module)} may not import {sorted(wrong)}"


@pytest.mark.parametrize("module", MODULES, ids=path_of)
def test_modules_have_a_name_that_says_what_is_in_them(module):
    assert not {"utils", "util", "helpers", "misc"} & set(module.relative_to(PACKAGE).with_suffix("").parts)


@pytest.mark.parametrize("module", MODULES, ids=path_of)
def test_modules_are_short_enough_to_be_read(module):
    lines = len(module.read_text("utf-8").splitlines())
    assert lines <= LONGER.get(path_of(module), MAX_LINES)


def test_exceptions_to_the_length_are_still_needed():
    for path in LONGER:
        assert len((PACKAGE / path).read_text("utf-8").splitlines()) > MAX_LINES, f"{path} needs no exception"


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("from ..build import interface", {"build"}),
        ("from .. import errors, hub", {"errors", "hub"}),
        ("import prebuilt_spawner.hub.mixin", {"hub"}),
        ("def f():\n    from prebuilt_spawner.adapters.memory import MemoryEngine", {"adapters"}),
        ("if TYPE_CHECKING:\n    from ..ledger import SqlLedger", {"ledger"}),
        ("from .lock import Lock", {"environment"}),
        ("import hub, prebuilt_spawner_other.hub", set()),
    ],
)
def test_every_form_of_import_is_seen(monkeypatch, tmp_path, source, parts):
    """The check itself, on modules that lie in a copy of the package's outline."""
    for folder in ("build", "hub", "ledger", "adapters", "environment"):
        (tmp_path / folder).mkdir()
    (tmp_path / "errors.py").touch()
    module = tmp_path / "environment" / "lock.py"
    module.write_text(source)
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    assert imported_parts(module) == parts
