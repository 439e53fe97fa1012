"""A whole environment, on every kind of base, beside what pip makes of the same lock."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from packaging.utils import canonicalize_name

from prebuilt_spawner.image.layer import SOURCE_DATE_EPOCH

from .allowed import ALLOWED, explained
from .images import Images
from .machines import Machine, Server

REQUIREMENTS = (
    *("pandas", "scikit-learn", "matplotlib", "seaborn", "requests", "sqlalchemy", "tqdm", "pyarrow"),
    "ipywidgets",  # with it an extension of JupyterLab, and files for /etc and /share
    *("zope-event", "zope-interface"),  # two in one namespace (PEP 420), one of them compiled
    "greenlet",  # headers
    "jmespath",  # a script that is no entry point
)
EXTENSION = "@jupyter-widgets/jupyterlab-manager"

SCRIPTS = """
import concurrent.futures, json, os, subprocess, sys
def result(path):
    done = subprocess.run([path, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    # Of a traceback the last line: launchers are not the same line by line.
    return os.path.basename(path), [done.returncode, done.stdout, "".join(done.stderr.splitlines()[-1:])]
with concurrent.futures.ThreadPoolExecutor(2) as threads:
    print(json.dumps(dict(threads.map(result, sys.argv[1:]))))
"""

METADATA = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    one = importlib.metadata.distribution(name)
    points = sorted([p.group, p.name, p.value] for p in one.entry_points)
    count = len(list(importlib.metadata.distributions(name=name)))
    found[name] = [one.version, points, sorted(one.requires or []), count]
print(json.dumps([found, importlib.metadata.packages_distributions()]))
"""

PROGRAM = """
import greenlet, ipywidgets, jmespath, matplotlib, pandas, pyarrow, requests, seaborn, sklearn, sqlalchemy, tqdm
import zope.event, zope.interface
import jupyterlab, six, yaml
print(pandas.DataFrame({"a": [1, 2]}).sum()["a"])
"""

RECORDED = """
import importlib.metadata, sys
for name in sys.argv[1:]:
    for file in importlib.metadata.files(name):
        print(file.locate().resolve())
"""

WRONG_ROWS = """
import base64, hashlib, importlib.metadata, sys
for name in sys.argv[1:]:
    for file in importlib.metadata.files(name):
        content = file.locate().read_bytes()
        if file.hash is not None:
            value = base64.urlsafe_b64encode(hashlib.new(file.hash.mode, content).digest()).decode().rstrip("=")
            if (value, len(content)) != (file.hash.value, file.size):
                print(file)
        elif not str(file).endswith((".pyc", ".dist-info/RECORD")):
            print(file)
"""


@pytest.fixture(scope="session")
def images(make_images: Callable[..., Images]) -> Images:
    """The environment on this kind of base, by us and by pip."""
    return make_images(*REQUIREMENTS)


def names(images: Images) -> list[str]:
    return sorted(images.environment.lock.pins)


def test_every_file_is_as_pip_has_it(images: Images):
    """Path, kind, mode, owner and content of everything; the list of what may differ has no entry too many."""
    unexplained, unused = explained(images.differences(), ALLOWED, images)
    assert [str(one) for one in unexplained[:50]] == []
    assert [entry.reason for entry in unused] == []


def test_everything_new_has_the_one_time(images: Images):
    """No time of a build, a wheel or a machine is in the image."""
    other = [
        entry.path for entry in images.our_tree.new(images.base.tree) if entry.mtime_ns != SOURCE_DATE_EPOCH * 10**9
    ]
    assert other == []


def test_scripts_run_as_pips_do(images: Images):
    """Every script of the environment returns and says what the one that pip made returns and says."""
    folder = f"{images.environment.probe.scheme.scripts}/"
    new = (entry for entry in images.our_tree.new(images.base.tree) if entry.kind == "file")
    scripts = [entry.path for entry in new if entry.path.rpartition("/")[0] + "/" == folder]
    assert {"f2py", "fonttools", "jp.py", "tqdm"} <= {path.removeprefix(folder) for path in scripts}
    ours, pips = images.both(lambda machine: json.loads(machine.python(SCRIPTS, *scripts)))
    assert ours == pips
    # Some do not know the option, and say so.
    assert [name for name, (_, _, last_words) in ours.items() if "No module named" in last_words] == []


def test_jupyterlab_lists_the_extension(images: Images):
    """Enabled and OK, as in pip's image."""
    ours, pips = images.both(lambda machine: machine.run("jupyter", "labextension", "list").err)
    line = next(line for line in ours.splitlines() if EXTENSION in line)
    assert "enabled" in line
    assert "OK" in line
    assert ours == pips


def test_metadata_is_consistent(images: Images):
    """Each distribution is there once; its version, entry points, requirements and modules are as in pip's image."""
    (ours, our_modules), (pips, pips_modules) = images.both(
        lambda machine: json.loads(machine.python(METADATA, *names(images)))
    )
    assert ours == pips
    assert our_modules == pips_modules
    assert {name: version for name, (version, *_) in ours.items()} == images.environment.lock.pins
    assert {count for *_, count in ours.values()} == {1}


def test_records_are_complete_and_correct(images: Images):
    """Every new file but our own notes stands in the RECORD of one distribution, with its hash and size."""
    assert images.ours.python(WRONG_ROWS, *names(images)) == ""
    program = (
        "import importlib.metadata as m, sys; [print(f.locate().resolve()) for n in sys.argv[1:] for f in m.files(n)]"
    )
    recorded = images.ours.python(program, *names(images)).splitlines()
    assert len(recorded) == len(set(recorded))
    new = {entry.path for entry in images.our_tree.new(images.base.tree) if entry.kind != "folder"}
    notes = {path for path in new if path.startswith("/usr/local/share/prebuilt-spawner/")}
    others = (
        "/EXTERNALLY-MANAGED",
        "/prebuilt_spawner_advice.pth",
        "/conda-meta/frozen",
        "/profile.d/prebuilt-spawner.sh",
    )
    notes |= {path for path in new if path.endswith(others)}
    assert new - notes == set(recorded)


def test_pip_lists_everything(images: Images):
    """`pip list` has every package of the lock and every other of the base, and is the same in pip's image."""

    def listed(machine: Machine) -> dict[str, str]:
        rows = json.loads(machine.run("python3", "-m", "pip", "list", "--format", "json").out)
        return {canonicalize_name(row["name"]): row["version"] for row in rows}

    ours, pips = images.both(listed)
    assert ours == pips
    assert ours == {**listed(images.base.machine), **images.environment.lock.pins}


def test_no_package_of_the_base_is_broken(images: Images):
    """`pip check` says of the image what it says of the base, and of pip's image."""
    ours, pips = images.both(checked)
    assert ours == pips == checked(images.base.machine)


def test_modules_are_imported(images: Images):
    """What was asked for works, the two halves of a namespace and the base's packages included."""
    assert images.ours.python(PROGRAM) == "3"


def test_the_server_starts_and_serves_the_extension(start_server: Callable[[str], Server], images: Images):
    """The image's own entry point and command bring up a JupyterLab that the base's health check finds healthy."""
    server = start_server(images.environment.image)
    assert server.becomes_healthy()
    assert EXTENSION in server.page("/lab")


def checked(machine: Machine) -> list[str]:
    """What `pip check` says, line by line, in any order."""
    return sorted(machine.run("python3", "-m", "pip", "check", check=False).lines)
