"""Files that cannot live together, or in the base: each is refused with a sentence that names both sides."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from prebuilt_spawner.environment.base import FolderEntry
from prebuilt_spawner.errors import UnbuildableEnvironment
from prebuilt_spawner.image.bytecode import with_bytecode
from prebuilt_spawner.image.layer import FileRange

from .plans import IN_SITE, check_layers, names, planned
from .wheels import (
    SITE,
    Member,
    fragment_of,
    installed,
    installed_wheel,
    layer_bytes,
    make_distribution,
    make_probe,
    make_wheel,
)

PROGRAM = 0o100755
SYSTEM = "/usr/lib/python3/dist-packages"


def test_equal_files_of_two_wheels_are_kept_once(tmp_path: Path) -> None:
    """Same bytes and mode: in the first by name; the later one goes on without it."""
    one = fragment_of(tmp_path, "one", {"ns/__init__.py": b"same", "ns/one.py": b"1"})
    two = fragment_of(tmp_path, "two", {"a.py": b"a", "ns/__init__.py": b"same", "ns/two.py": b"2"})
    plan = planned([two, one])
    check_layers(plan)
    found = names(plan)[0]
    assert found.count(f"{IN_SITE}/ns/__init__.py") == 1
    assert {f"{IN_SITE}/{name}" for name in ("a.py", "ns/one.py", "ns/two.py")} <= set(found)
    assert len([part for part in plan.layers[0].parts if isinstance(part, FileRange)]) == 5
    with tarfile.open(fileobj=io.BytesIO(layer_bytes(plan.layers[0]))) as archive:
        stream = archive.extractfile(f"{IN_SITE}/ns/two.py")
        assert stream is not None
        assert stream.read() == b"2"


RUN = "[console_scripts]\nrun = demo:main\n"
NFC, NFD = "caf\u00e9.py", "cafe\u0301.py"
CONFLICTS: dict[str, tuple[dict[str, bytes | Member], dict[str, bytes | Member], str]] = {
    "content": ({"x.py": b"1"}, {"x.py": b"2"}, "x.py"),
    "length": ({"x.py": b""}, {"x.py": b"2"}, "x.py"),
    "mode": ({"x.py": b"1"}, {"x.py": Member(b"1", PROGRAM)}, "x.py"),
    "case": ({"x.py": b"1"}, {"X.py": b"1"}, "/X.py"),
    "case of a folder": ({"Crypto/x.py": b"1"}, {"crypto/x.py": b"1"}, "rypto/x.py"),
    "accents": ({NFC: b"1"}, {NFD: b"1"}, "caf"),
    "file and folder": ({"x": b"1"}, {"x/y.py": b"1"}, "/x"),
    "folder and file": ({"x/y/z.py": b"1"}, {"x": b"1"}, "/x"),
    "script": ({"one-1.0.data/scripts/run": b"1"}, {"two-1.0.data/scripts/run": b"2"}, "bin/run"),
    "script and data": ({"one-1.0.data/scripts/run": b"1"}, {"two-1.0.data/data/bin/run": b"2"}, "bin/run"),
    "script and entry point": (
        {"one-1.0.data/scripts/run": b"1"},
        {"two-1.0.dist-info/entry_points.txt": RUN.encode()},
        "bin/run",
    ),
    "two entry points": (
        {"one-1.0.dist-info/entry_points.txt": RUN.encode()},
        {"two-1.0.dist-info/entry_points.txt": RUN.replace("demo", "other").encode()},
        "bin/run",
    ),
    "script where a folder is": ({"one-1.0.data/scripts/run": b"1"}, {"two-1.0.data/data/bin/run/x": b"2"}, "bin/run"),
    "root and purelib": ({"x.py": b"1"}, {"two-1.0.data/purelib/x.py": b"2"}, "x.py"),
    "root and data": ({"x.py": b"1"}, {"two-1.0.data/data/lib/python3.11/site-packages/x.py": b"2"}, "x.py"),
    "start hook": ({"x.pth": b"import os"}, {"x.pth": b"import sys"}, "x.pth"),
    "customiser": ({"sitecustomize.py": b"1"}, {"sitecustomize.py": b"2"}, "sitecustomize.py"),
}


@pytest.mark.parametrize("what", CONFLICTS)
def test_two_wheels_that_want_different_things_are_refused(tmp_path: Path, what: str) -> None:
    """The message names both and the file, whichever comes first."""
    first, second, file = CONFLICTS[what]
    fragments = [fragment_of(tmp_path, "one", first), fragment_of(tmp_path, "two", second)]
    for order in (fragments, fragments[::-1]):
        with pytest.raises(UnbuildableEnvironment, match=r"one (has|and).*two|two (has|and).*one") as caught:
            planned(order)
        assert file in caught.value.message


def test_a_spelling_of_the_base_is_taken(tmp_path: Path) -> None:
    """Also one of the base, of a distribution that stays: both are named, and both spellings."""
    probe = make_probe(make_distribution("present", "Thing.py", "shared.py"), make_distribution("gone", "Other.py"))
    with pytest.raises(UnbuildableEnvironment, match=r"present in the base image and demo .*/thing\.py.*/Thing\.py"):
        planned([fragment_of(tmp_path, "demo", {"thing.py": b""})], probe=probe)
    planned([fragment_of(tmp_path, "gone", {"other.py": b""})], probe=probe)


def test_headers_lie_in_a_folder_of_the_distribution(tmp_path: Path) -> None:
    """So that equal names do not meet; by way of the data folder they can."""
    first = fragment_of(tmp_path, "one", {"one-1.0.data/headers/x.h": b"1"})
    check_layers(planned([first, fragment_of(tmp_path, "two", {"two-1.0.data/headers/x.h": b"2"})]))
    path = "three-1.0.data/data/include/site/python3.11/one/x.h"
    with pytest.raises(UnbuildableEnvironment, match=r"one and three .*x\.h"):
        planned([first, fragment_of(tmp_path, "three", {path: b"3"})])


METADATA_OF_OTHERS = [
    "demo-1.0.data/data/lib/python3.11/site-packages/present-9.dist-info/METADATA",
    "demo-1.0.data/data/lib/python3.11/site-packages/Present-9.dist-info/entry_points.txt",
    "present-9.egg-info/PKG-INFO",
    "present.egg-info",
    "other-9.egg-info/PKG-INFO",
]


@pytest.mark.parametrize("path", METADATA_OF_OTHERS)
def test_what_is_said_of_another_distribution_is_not_changed(tmp_path: Path, path: str) -> None:
    """Of one of the base or one that is installed, present version or not: refused, naming both."""
    probe = make_probe(make_distribution("present", "present.py"))
    other = fragment_of(tmp_path, "other", {"other.py": b""})
    with pytest.raises(UnbuildableEnvironment, match=r'demo has a file ".*" in the metadata of (present|other)\.'):
        planned([fragment_of(tmp_path, "demo", {path: b""}), other], probe=probe)


def test_litter_of_a_careless_build_is_no_matter(tmp_path: Path) -> None:
    """An egg-info of the distribution itself, or of one that nobody has."""
    check_layers(planned([fragment_of(tmp_path, "demo", {"demo.egg-info/PKG-INFO": b"", "tests.egg-info": b""})]))


# -- what runs whenever Python starts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", ["sitecustomize.py", "usercustomize/__init__.py", "sitecustomize.cpython-311-x86_64-linux-gnu.so"]
)
def test_what_the_base_runs_at_every_start_goes_on_running(tmp_path: Path, file: str) -> None:
    """A second module of that name is refused, naming both, wherever the first is; without a first it is installed."""
    module = file.partition("/")[0].partition(".")[0]
    fragment = fragment_of(tmp_path, "demo", {file: b""})
    present = f"/usr/lib/python3.11/{module}.py"
    with pytest.raises(UnbuildableEnvironment, match=rf"demo .*{module}.* so has the base image"):
        planned([fragment], probe=make_probe(customisers={module: present}))
    owned = make_probe(make_distribution("tracer", f"{module}.py"), customisers={module: f"{SITE}/{module}.py"})
    with pytest.raises(UnbuildableEnvironment, match=rf"demo .*{module}.* tracer in the base image"):
        planned([fragment], probe=owned)
    check_layers(planned([fragment]))


def test_a_new_version_brings_its_own_start_code_again(tmp_path: Path) -> None:
    """What goes hides nothing."""
    probe = make_probe(
        make_distribution("demo", "sitecustomize.py"), customisers={"sitecustomize": f"{SITE}/sitecustomize.py"}
    )
    check_layers(planned([fragment_of(tmp_path, "demo", {"sitecustomize.py": b"new"})], probe=probe))


def test_start_hooks_of_packages_are_installed(tmp_path: Path) -> None:
    """`.pth` files are how setuptools, coverage and namespace packages work; only others' are not overwritten."""
    probe = make_probe(
        make_distribution("setuptools", "distutils-precedence.pth"), make_distribution("server", "a.pth")
    )
    files = {"distutils-precedence.pth": b"import os", "setuptools-1.0.data/purelib/more-nspkg.pth": b"import sys"}
    plan = planned([fragment_of(tmp_path, "setuptools", files)], probe=probe)
    check_layers(plan)
    assert {f"{IN_SITE}/distutils-precedence.pth", f"{IN_SITE}/more-nspkg.pth"} <= set(names(plan)[1])
    with pytest.raises(UnbuildableEnvironment, match=r"demo .*a\.pth.* server in the base image"):
        planned([fragment_of(tmp_path, "demo", {"a.pth": b"import os"})], probe=probe)


# -- the base's files -------------------------------------------------------------------------------------------------


def test_a_file_of_the_base_is_not_overwritten(tmp_path: Path) -> None:
    """One that stays keeps its files: refused naming both, in other words where it is the server's."""
    probe = make_probe(make_distribution("notebook", "notebook/app.py", "single"))
    for files in ({"notebook/app.py": b""}, {"single/x.py": b""}):
        fragment = fragment_of(tmp_path, "demo", files)
        with pytest.raises(UnbuildableEnvironment, match=r"demo .* belongs to notebook in the base"):
            planned([fragment], probe=probe)
        with pytest.raises(UnbuildableEnvironment, match=r"demo .* belongs to the server \(notebook\)"):
            planned([fragment], probe=probe, protected=frozenset({"notebook"}))


@pytest.mark.parametrize("lists_bytecode", [True, False])
def test_a_shared_init_may_be_brought_again(tmp_path: Path, lists_bytecode: bool) -> None:
    """The new version of a namespace package has the `__init__` that its old one shared, and bytecode of it, be that
    on the lists of the base or not."""
    compiled = "ns/__pycache__/__init__.cpython-311.pyc"
    shared = ("ns/__init__.py", *([compiled] if lists_bytecode else []))
    probe = make_probe(make_distribution("ns-a", "ns/__init__.py"), make_distribution("ns-b", *shared))
    wheel = installed_wheel(make_wheel(tmp_path, {"ns/__init__.py": b""}, name="ns_a"), tmp_path)
    fragment = with_bytecode(wheel, {f"{IN_SITE}/{compiled}": b"code"}, body=tmp_path / "compiled.tar")
    check_layers(planned([fragment], probe=probe))
    with pytest.raises(UnbuildableEnvironment, match=r"server \(ns-b\)"):
        planned([fragment], probe=probe, protected=frozenset({"ns-b"}))


def test_a_file_of_what_is_replaced_may_be_overwritten(tmp_path: Path) -> None:
    """Also by another distribution: a module that moved from one to the other."""
    probe = make_probe(make_distribution("demo", "demo.py", "moved.py"))
    fragments = [fragment_of(tmp_path, "demo", {"demo.py": b"new"}), fragment_of(tmp_path, "other", {"moved.py": b""})]
    plan = planned(fragments, probe=probe)
    check_layers(plan)
    assert {f"{IN_SITE}/demo.py", f"{IN_SITE}/moved.py"} <= set(names(plan)[1])


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"linked/x.py": b""}, "link"),
        ({"linked": b""}, "folder of the base"),
        ({"present": b""}, "folder of the base"),
        ({"demo-1.0.data/data/lib/python3.11/os.py": b""}, "Python's own library"),
        ({"demo-1.0.data/data/lib/python3.11/EXTERNALLY-MANAGED": b""}, "notes about the image"),
    ],
)
def test_places_where_no_file_can_go(tmp_path: Path, files: dict[str, bytes], word: str) -> None:
    """Symlinked folders, present folders, the standard library and our own files: refused, naming wheel and file."""
    probe = make_probe()
    probe = replace(
        probe,
        folders={**probe.folders, f"{SITE}/present": FolderEntry(mode=0o755, uid=0, gid=0)},
        links={f"{SITE}/linked": "/srv/elsewhere"},
    )
    own_files = {"opt/env/lib/python3.11/EXTERNALLY-MANAGED": b""}
    with pytest.raises(UnbuildableEnvironment, match=rf"demo has a file .*{word}"):
        planned([fragment_of(tmp_path, "demo", files)], probe=probe, own_files=own_files)


def test_no_wheel_puts_a_program_into_our_own_folder(tmp_path: Path) -> None:
    """It comes first on PATH."""
    probe = make_probe()
    probe = replace(probe, scheme=replace(probe.scheme, data="/usr/local"))
    files = {"demo-1.0.data/data/share/prebuilt-spawner/bin/ls": b""}
    wheel = make_wheel(tmp_path, files, name="demo")
    with pytest.raises(UnbuildableEnvironment, match=r"demo has a file .*notes about the image"):
        planned([installed(wheel, tmp_path, scheme=probe.scheme)], probe=probe)


def test_our_files_go_where_a_linked_folder_points() -> None:
    """A base whose share folder is a link gets the files at the link's target."""
    probe = replace(make_probe(), links={"/usr/local/share": "/srv/share"})
    assert names(planned(probe=probe)) == [["srv/share/prebuilt-spawner/Dockerfile"]]


# -- commands ---------------------------------------------------------------------------------------------------------


def executables(*paths: str) -> dict[str, str]:
    """Programs on the base's PATH."""
    return {path.rpartition("/")[2]: path for path in paths}


@pytest.mark.parametrize("present", ["/usr/bin/run", "/opt/env/bin/run"])
def test_a_command_does_not_take_the_place_of_the_bases(tmp_path: Path, present: str) -> None:
    """One that is on the PATH, at that place or another: refused naming the distribution, the command and its owner."""
    run = fragment_of(tmp_path, "demo", {}, entry_points="[console_scripts]\nrun = demo:main\n")
    probe = make_probe(executables=executables(present))
    with pytest.raises(UnbuildableEnvironment, match=rf'demo .*"run".*base image, in {present.removesuffix("/run")}\.'):
        planned([run], probe=probe)
    owned = make_probe(make_distribution("tool", present), executables=executables(present))
    with pytest.raises(UnbuildableEnvironment, match=r"demo .*run.*tool"):
        planned([run], probe=owned)
    with pytest.raises(UnbuildableEnvironment, match=r"demo .*run.*server \(tool\)"):
        planned([run], probe=owned, protected=frozenset({"tool"}))
    in_data = fragment_of(tmp_path, "other", {"other-1.0.data/data/bin/run": Member(b"", PROGRAM)})
    with pytest.raises(UnbuildableEnvironment, match=r"other .*run"):
        planned([in_data], probe=probe)


def test_the_interpreter_cannot_be_replaced(tmp_path: Path) -> None:
    """A wheel with a file `bin/python3`, executable or not."""
    for mode in (PROGRAM, 0o100644):
        evil = fragment_of(tmp_path, "evil", {"evil-1.0.data/data/bin/python3": Member(b"", mode)})
        with pytest.raises(UnbuildableEnvironment, match=r"evil .*python3"):
            planned([evil])


def test_a_command_of_what_is_replaced_may_be_replaced(tmp_path: Path) -> None:
    """At the same place, at another one, and where the old version is Debian's without a list of files."""
    run = fragment_of(tmp_path, "demo", {}, entry_points="[console_scripts]\nrun = demo:main\n")
    same = make_probe(make_distribution("demo", "/opt/env/bin/run"), executables=executables("/opt/env/bin/run"))
    check_layers(planned([run], probe=same))
    for files in (None, ("/usr/bin/run", f"{SYSTEM}/demo.py")):
        debian = make_distribution("demo", files=files, location=SYSTEM)
        check_layers(planned([run], probe=make_probe(debian, executables=executables("/usr/bin/run"))))
    taken = make_probe(
        make_distribution("demo", files=None, location=SYSTEM),
        make_distribution("tool", "/usr/bin/run"),
        executables=executables("/usr/bin/run"),
    )
    with pytest.raises(UnbuildableEnvironment, match=r"demo .*run.*tool"):
        planned([run], probe=taken)


def test_a_file_that_is_no_command_hides_none(tmp_path: Path) -> None:
    """A module, or a data file, may be called as a program is."""
    fragment = fragment_of(tmp_path, "demo", {"sh": Member(b"", PROGRAM), "demo-1.0.data/data/share/sh": b""})
    check_layers(planned([fragment]))
