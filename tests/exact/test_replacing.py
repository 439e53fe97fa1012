"""Packages of the base that are replaced, on every kind of base, beside what pip makes of the same lock."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from prebuilt_spawner.errors import UnresolvableRequest

from ..assembling import assembled
from .allowed import ALLOWED_WHERE_REPLACED, explained
from .images import Base, Images
from .test_environment import checked

# In the versions of dev/bases/older.txt, and the last two as new as can be. Scripts come and go with the versions, the
# name of a metadata folder changes its case, and an old mistune lacks folders.
NEWER = ("json5", "send2trash", "sphinxcontrib-htmlhelp")
OLDER = (*NEWER, "mistune", "tzdata")
MUCH_OLDER = {"mistune": "mistune<3"}
OF_THE_DISTRIBUTION = {"newer": ("pyyaml", "tabulate"), "older": ("six", "tabulate")}

FOUND = """
import importlib.metadata, importlib.util, json, sys
found = {}
for name, module in json.loads(sys.argv[1]).items():
    origin = importlib.util.find_spec(module).origin
    places = [str(one._path.parent) for one in importlib.metadata.distributions(name=name)]
    found[name] = [importlib.metadata.version(name), origin, places]
print(json.dumps(found))
"""
MODULES = {"pyyaml": "yaml", "sphinxcontrib-htmlhelp": "sphinxcontrib.htmlhelp"}


def wanted(base: Base, direction: str) -> dict[str, str]:
    """A requirement for each package that is to be replaced, by its name."""
    names = {"newer": NEWER, "older": OLDER}[direction]
    if base.kind == "system":
        names += OF_THE_DISTRIBUTION[direction]
    present = listed(base)
    if direction == "newer":
        return {name: f"{name}>{present[name]}" for name in names}
    return {name: MUCH_OLDER.get(name, f"{name}<{present[name]}") for name in names}


def listed(base: Base) -> dict[str, str]:
    """Versions by normalised name."""
    rows = json.loads(base.machine.run("python3", "-m", "pip", "list", "--format", "json").out)
    return {canonicalize_name(row["name"]): row["version"] for row in rows}


@pytest.fixture(scope="session", params=["newer", "older"])
def replaced(request: pytest.FixtureRequest, base: Base, make_images: Callable[..., Images]) -> Images:
    """An environment of nothing but other versions of the base's packages, by us and by pip."""
    requirements = wanted(base, request.param)
    images = make_images(*requirements.values())
    assert images.environment.lock.pins.keys() == requirements.keys()
    return images


def shadowed(images: Images) -> set[str]:
    """Names of the distribution's packages, which stay where they are and are not found any more."""
    probe = images.environment.probe
    places = {probe.scheme.purelib, probe.scheme.platlib}
    return {name for name in images.environment.lock.pins if probe.distributions[name].location not in places}


def test_every_file_is_as_pip_has_it(replaced: Images):
    """Path, kind, mode, owner and content of everything, what pip removed and what folders it left included."""
    unexplained, _ = explained(replaced.differences(), ALLOWED_WHERE_REPLACED, replaced)
    assert [str(one) for one in unexplained[:50]] == []


def test_one_version_is_there(replaced: Images):
    """Metadata and modules are the lock's version's, in one place; the distribution's own are hidden behind it."""
    probe, pins = replaced.environment.probe, replaced.environment.lock.pins
    modules = {name: MODULES.get(name, name.replace("-", "_")) for name in pins}
    found = json.loads(replaced.ours.python(FOUND, json.dumps(modules)))
    site = probe.scheme.purelib
    for name, version in pins.items():
        places = [site, probe.distributions[name].location] if name in shadowed(replaced) else [site]
        assert found[name][0] == version
        assert found[name][1].startswith(f"{site}/")
        assert found[name][2] == places


def test_no_old_file_is_left(replaced: Images):
    """What the replaced version had and the new one has not is gone, bytecode included."""
    program = (
        "import importlib.metadata as m, sys;"
        "[print(f.locate().resolve()) for n in sys.argv[1:] for f in m.files(n) if f.locate().exists()]"
    )
    names = sorted(replaced.environment.lock.pins.keys() - shadowed(replaced))
    before, now = (
        set(machine.python(program, *names).splitlines()) for machine in (replaced.base.machine, replaced.ours)
    )
    folders = {path.rpartition("/")[0] for path in before}
    left = {path for path in before - now if path in replaced.our_tree}
    stray = {
        entry.path
        for entry in replaced.our_tree
        if entry.path.endswith(".pyc")
        and entry.path.rpartition("/__pycache__/")[0] in folders
        and source_of(entry.path) not in replaced.our_tree
    }
    assert left | stray == set()


def source_of(bytecode: str) -> str:
    folder, _, name = bytecode.rpartition("/__pycache__/")
    return f"{folder}/{name.partition('.')[0]}.py"


def test_no_package_is_broken(replaced: Images):
    """`pip check` says of the image what it says of the base, and of pip's image."""
    ours, pips = replaced.both(checked)
    assert ours == pips == checked(replaced.base.machine)


def test_the_other_half_of_the_namespace_lives_on(replaced: Images):
    """The folder that two packages share stays, with what the other one has in it."""
    program = "from importlib.util import find_spec; print(find_spec('sphinxcontrib.qthelp').origin)"
    assert replaced.ours.python(program) == replaced.base.machine.python(program)


def test_condas_record_goes_with_its_package(replaced: Images):
    """conda's folder has a record of each package that is as conda put it there, and of no other."""
    if replaced.base.kind != "conda":
        folder = [path for path in replaced.our_tree.entries if "/conda-meta/" in path]
        assert folder == []
        return
    names = {"tzdata": "python-tzdata"}
    records = {entry.path for entry in replaced.base.tree if entry.path.startswith("/opt/conda/conda-meta/")}
    gone = {path for path in records if path not in replaced.our_tree}
    expected = set()
    for name in replaced.environment.lock.pins:
        version = replaced.environment.probe.distributions[name].version
        expected.add(f"/opt/conda/conda-meta/{names.get(name, name)}-{version}-pyhd8ed1ab_0.json")
    assert gone == expected


@pytest.mark.parametrize("base", ["conda"], indirect=True)
def test_what_would_break_a_package_that_no_index_has_is_refused(base: Base, cache: Path, run: str):
    """The sentence names what was asked for and what stands against it."""
    with pytest.raises(UnresolvableRequest, match=r"json5.*conda-libmamba-solver"):
        asyncio.run(
            assembled(["json5>=0.12"], base=base.reference, repository=f"prebuilt-spawner-test/{run}", folder=cache)
        )
