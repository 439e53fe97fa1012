"""What the specifications leave open or ask for, in wheels that can be installed.

https://packaging.python.org/en/latest/specifications/binary-distribution-format/,
https://packaging.python.org/en/latest/specifications/entry-points/ and
https://packaging.python.org/en/latest/specifications/recording-installed-packages/.
"""

import csv
from pathlib import Path

import pytest

from .wheels import SCHEME, SITE, Member, installed, make_wheel, tree

IN_SITE = SITE[1:]
INFO = f"{IN_SITE}/demo_pkg-1.0.dist-info"


def record(files: dict[str, tuple[int, bytes]]) -> dict[str, tuple[str, str]]:
    """Hash and size by path, as the installed RECORD has them."""
    rows = csv.reader(files[f"{INFO}/RECORD"][1].decode().splitlines())
    return {path: (hash_, size) for path, hash_, size in rows}


@pytest.mark.parametrize("version", ["1.0", "1.9", "1", " 1.0 ", "0.1"])
def test_a_wheel_of_the_same_major_version_is_installed(tmp_path: Path, version: str) -> None:
    """A newer minor version may only add what can be passed over; the oldest wheels say 0.1."""
    text = f"Wheel-Version: {version}\nRoot-Is-Purelib: true\n".encode()
    assert f"{IN_SITE}/demo.py" in tree(installed(make_wheel(tmp_path, {"demo.py": b""}, wheel_file=text), tmp_path))


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("Root-Is-Purelib: true", "purelib"),
        ("Root-Is-Purelib: True", "purelib"),
        ("root-is-purelib:  TRUE ", "purelib"),
        ("Root-Is-Purelib: false", "platlib"),
        ("Root-Is-Purelib: yes", "platlib"),
        ("Root-Is-Purelib:", "platlib"),
        ("Tag: py3-none-any", "platlib"),
    ],
)
def test_the_root_goes_to_platlib_unless_it_is_said_to_be_pure(tmp_path: Path, line: str, place: str) -> None:
    """In any case of the letters, as pip reads it; what is missing or garbled is not pure."""
    text = f"Wheel-Version: 1.0\n{line}\n".encode()
    found = tree(installed(make_wheel(tmp_path, {"demo.py": b""}, wheel_file=text), tmp_path))
    assert f"{getattr(SCHEME, place)[1:]}/demo.py" in found


def test_the_wheels_own_metadata_stays_as_it_was(tmp_path: Path) -> None:
    """WHEEL and entry_points.txt arrive byte for byte, however they are read."""
    wheel_file = b"Wheel-Version:  1.3\nX-Odd: 1\nRoot-Is-Purelib: TRUE\n"
    entry_points = "# made by hand\r\n[console_scripts]\r\n  a=demo:main[x]\r\n"
    wheel = make_wheel(tmp_path, {"demo.py": b""}, wheel_file=wheel_file, entry_points=entry_points)
    found = tree(installed(wheel, tmp_path))
    assert found[f"{INFO}/WHEEL"][1] == wheel_file
    assert found[f"{INFO}/entry_points.txt"][1] == entry_points.encode()


def test_folders_in_the_metadata_folder_are_installed(tmp_path: Path) -> None:
    """Licences (PEP 639), bills of materials (PEP 770) and what will be invented."""
    paths = ("licenses/LICENSE", "licenses/vendored/x/COPYING", "sboms/demo.cdx.json", "unknown/thing")
    files = {f"demo_pkg-1.0.dist-info/{path}": path.encode() for path in paths}
    found = tree(installed(make_wheel(tmp_path, files), tmp_path))
    assert {path: found[f"{INFO}/{path}"][1] for path in paths} == {path: path.encode() for path in paths}


def test_signatures_are_installed_and_listed_without_a_hash(tmp_path: Path) -> None:
    """RECORD.jws and RECORD.p7s are made after RECORD; they alone need not be in it."""
    files = {f"demo_pkg-1.0.dist-info/{name}": Member(b"signed", listed=False) for name in ("RECORD.jws", "RECORD.p7s")}
    found = tree(installed(make_wheel(tmp_path, files), tmp_path))
    assert found[f"{INFO}/RECORD.jws"][1] == found[f"{INFO}/RECORD.p7s"][1] == b"signed"
    assert "demo_pkg-1.0.dist-info/RECORD.jws" in record(found)


def test_a_size_that_is_not_listed_is_filled_in(tmp_path: Path) -> None:
    """The specification asks for the hash only."""
    hash_ = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    found = tree(installed(make_wheel(tmp_path, {"demo.py": Member(b"", record=f"{hash_},")}), tmp_path))
    assert record(found)["demo.py"] == (hash_, "0")


@pytest.mark.parametrize("data", ["Demo.Pkg-1.0.data", "demo-pkg-1.0.data", "DEMO_PKG-1.0.0.data"])
@pytest.mark.parametrize("info", ["demo_pkg-1.0.dist-info", "Demo.Pkg-1.0.dist-info"])
def test_the_data_folder_may_be_spelt_otherwise_than_the_metadata_folder(tmp_path: Path, data: str, info: str) -> None:
    """Both are the distribution's in every spelling of its name and version, and what is in it is put in its place."""
    found = tree(installed(make_wheel(tmp_path, {f"{data}/scripts/run": b"#!python\n"}, dist_info=info), tmp_path))
    assert "opt/env/bin/run" in found
    assert f"{IN_SITE}/{info}/METADATA" in found
    assert not any(".data" in path for path in found)


ENTRY_POINTS = {
    "plain": ("[console_scripts]\nrun = demo.cli:main\n", "run", "demo.cli", "main"),
    "gui": ("[gui_scripts]\nrun = demo:main\n", "run", "demo", "main"),
    "without spaces": ("[console_scripts]\nrun=demo:main", "run", "demo", "main"),
    "with more spaces": ("[console_scripts]\n\trun\t =  demo : main  \n", "run", "demo", "main"),
    "extras": ("[console_scripts]\nrun = demo:main [one,two.three]\n", "run", "demo", "main"),
    "no space before extras": ("[console_scripts]\nrun = demo:main[one]\n", "run", "demo", "main"),
    "dotted attribute": ("[console_scripts]\nrun = demo:App.run.now\n", "run", "demo", "App.run.now"),
    "odd name": ("[console_scripts]\nrun-me.2+x_y = demo:main\n", "run-me.2+x_y", "demo", "main"),
    "name of another alphabet": ("[console_scripts]\nl\u00e4uft = demo:main\n", "l\u00e4uft", "demo", "main"),
    "indented": ("\n    [console_scripts]\n    run = demo:main\n", "run", "demo", "main"),
    "indented the more": ("[console_scripts]\nfirst = a:b\n  run = demo:main\n", "run", "demo", "main"),
    "CRLF": ("[console_scripts]\r\nrun = demo:main\r\n", "run", "demo", "main"),
    "comment": ("# x\n[console_scripts]\n# y = z\nrun = demo:main\n", "run", "demo", "main"),
    "per cent in another group": ("[x]\na = 100%\n[console_scripts]\nrun = demo:main\n", "run", "demo", "main"),
    "group in two parts": (
        "[console_scripts]\na = b:c\n[x]\n[console_scripts]\nrun = demo:main\n",
        "run",
        "demo",
        "main",
    ),
}


@pytest.mark.parametrize("what", ENTRY_POINTS)
def test_entry_points_are_read_as_python_reads_them(tmp_path: Path, what: str) -> None:
    """Each becomes a program that calls the object it names."""
    text, name, module, attribute = ENTRY_POINTS[what]
    mode, script = tree(installed(make_wheel(tmp_path, {}, entry_points=text), tmp_path))[f"opt/env/bin/{name}"]
    imported = attribute.partition(".")[0]
    assert mode == 0o755
    assert f"from {module} import {imported}\n" in script.decode()
    assert f"sys.exit({attribute}())" in script.decode()


@pytest.mark.parametrize("suffix", ["", ".exe", ".EXE", "-script.py", "-script.PY", ".pya"])
def test_wrappers_of_old_tools_give_way_to_entry_points(tmp_path: Path, suffix: str) -> None:
    """A script of a command's name, with what setuptools added on Windows, is left out; another is not."""
    files = {f"demo_pkg-1.0.data/scripts/{name}{suffix}": b"old" for name in ("run", "other")}
    found = tree(installed(make_wheel(tmp_path, files, entry_points="[console_scripts]\nrun = demo:main\n"), tmp_path))
    assert {path for path in found if "/bin/" in path} == {"opt/env/bin/run", f"opt/env/bin/other{suffix}"}
    assert found["opt/env/bin/run"][1] != b"old"
