"""Wheels that can be installed, and what becomes of them."""

import base64
import csv
import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prebuilt_spawner.environment.base import InstallScheme
from prebuilt_spawner.image.bytecode import with_bytecode
from prebuilt_spawner.image.install import install_wheel, shebang
from prebuilt_spawner.image.layer import LAYOUT_VERSION
from prebuilt_spawner.image.wheel import path_flaw

from .wheels import (
    INTERPRETER,
    SCHEME,
    SITE,
    Member,
    fragment_bytes,
    installed,
    installed_wheel,
    make_wheel,
    tree,
)

IN_SITE = SITE[1:]
EXECUTABLE = stat.S_IFREG | 0o755
FULL_WHEEL: dict[str, bytes | Member] = {
    "demo/__init__.py": b"x = 1\n",
    "demo/tool.sh": Member(b"#!/bin/sh\n", EXECUTABLE),
    "demo/data/ü.txt": b"umlaut",
    "demo_pkg-1.0.data/purelib/pure.py": b"pure",
    "demo_pkg-1.0.data/platlib/plat.so": b"plat",
    "demo_pkg-1.0.data/headers/demo.h": b"header",
    "demo_pkg-1.0.data/scripts/old": b"#!python -u\nprint(1)\n",
    "demo_pkg-1.0.data/scripts/native": b"\x7fELF",
    "demo_pkg-1.0.data/data/share/demo/x.txt": b"data",
}
ENTRY_POINTS = (
    "[console_scripts]\ndemo = demo.cli:main\n[gui_scripts]\ndemo-gui = demo.cli:Gui.start [extra]\n[other]\na = b\n"
)


def test_every_place_of_a_wheel_has_its_place_in_the_image(tmp_path: Path) -> None:
    """Root, the five `.data` folders and entry points go where the scheme says, with the right modes."""
    found = tree(installed(make_wheel(tmp_path, FULL_WHEEL, entry_points=ENTRY_POINTS), tmp_path))
    metadata = f"{IN_SITE}/demo_pkg-1.0.dist-info"
    assert {path: mode for path, (mode, _) in found.items()} == {
        f"{IN_SITE}/demo/__init__.py": 0o644,
        f"{IN_SITE}/demo/tool.sh": 0o755,
        f"{IN_SITE}/demo/data/ü.txt": 0o644,
        f"{IN_SITE}/pure.py": 0o644,
        "opt/env/lib64/python3.11/site-packages/plat.so": 0o644,
        "opt/env/include/site/python3.11/demo-pkg/demo.h": 0o644,
        "opt/env/bin/old": 0o755,
        "opt/env/bin/native": 0o755,
        "opt/env/bin/demo": 0o755,
        "opt/env/bin/demo-gui": 0o755,
        "opt/env/share/demo/x.txt": 0o644,
        **{f"{metadata}/{name}": 0o644 for name in ("METADATA", "WHEEL", "RECORD", "INSTALLER", "entry_points.txt")},
    }
    assert found["opt/env/bin/old"][1] == b"#!/opt/env/bin/python3\nprint(1)\n"
    assert found["opt/env/bin/native"][1] == b"\x7fELF"
    assert found["opt/env/bin/demo-gui"][1].endswith(b"sys.exit(Gui.start())\n")
    assert found[f"{metadata}/INSTALLER"][1] == b"prebuilt-spawner\n"


def test_the_root_of_a_platform_wheel_is_platlib(tmp_path: Path) -> None:
    """`Root-Is-Purelib: false` puts the root, metadata included, into platlib; RECORD is relative to that."""
    found = tree(installed(make_wheel(tmp_path, FULL_WHEEL, purelib=False), tmp_path))
    platlib = "opt/env/lib64/python3.11/site-packages"
    record = found[f"{platlib}/demo_pkg-1.0.dist-info/RECORD"][1].decode()
    assert f"{platlib}/demo/__init__.py" in found
    assert "../../../lib/python3.11/site-packages/pure.py,sha256=" in record
    assert "\nplat.so,sha256=" in record


def test_record_lists_every_file_with_its_hash_and_size(tmp_path: Path) -> None:
    """From the site folder, RECORD's paths lead to all files and to nothing else; each hash is that of the content."""
    fragment = installed(make_wheel(tmp_path, FULL_WHEEL, entry_points=ENTRY_POINTS), tmp_path)
    found = tree(fragment)
    rows = list(csv.reader(found[f"{IN_SITE}/demo_pkg-1.0.dist-info/RECORD"][1].decode().splitlines()))
    listed = {os.path.normpath(f"{IN_SITE}/{path}"): (hash_, size) for path, hash_, size in rows}
    assert len(rows) == len(listed)
    assert set(listed) == set(found)
    for file in fragment.files:
        hash_, size = listed[file.path]
        content = found[file.path][1]
        assert file.sha256 == hashlib.sha256(content).hexdigest()
        assert file.size_bytes == len(content)
        if file.path.endswith("/RECORD"):
            assert (hash_, size) == ("", "")
        else:
            padded = hash_.removeprefix("sha256=") + "="
            assert base64.urlsafe_b64decode(padded).hex() == file.sha256
            assert int(size) == file.size_bytes


def test_a_fragment_is_sorted_and_without_gaps(tmp_path: Path) -> None:
    """Files are in the order of their paths and cover their body, in each part; there are no folders in it."""
    wheel = installed_wheel(make_wheel(tmp_path, FULL_WHEEL, entry_points=ENTRY_POINTS), tmp_path)
    fragment = with_bytecode(wheel, {f"{IN_SITE}/b.pyc": b"b", f"{IN_SITE}/a.pyc": b"a"}, body=tmp_path / "compiled")
    parts = wheel.files, fragment.files[len(wheel.files) :]
    assert fragment.files[: len(wheel.files)] == wheel.files
    for files in parts:
        paths = [file.path for file in files]
        assert paths == sorted(paths)
        end = 0
        for file in files:
            assert file.offset_bytes == end
            end += file.length_bytes
        assert {file.body for file in files} == {files[0].body}
        assert end == files[0].body.stat().st_size
    assert fragment.size_bytes == sum(part[0].body.stat().st_size for part in parts)


@pytest.mark.parametrize("interpreter", [INTERPRETER, "/opt/my env/bin/python3", f"/opt/{'long' * 40}/bin/python3"])
def test_pip_installs_the_same_tree(tmp_path: Path, interpreter: str) -> None:
    """`pip install --prefix` makes the same files, but for INSTALLER, the launchers' text and RECORD's hashes."""
    wheel = make_wheel(tmp_path, FULL_WHEEL, entry_points=ENTRY_POINTS)
    prefix = tmp_path / "prefix"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--no-compile",
        "--quiet",
        "--no-warn-script-location",
    ]
    subprocess.run(
        [*pip, "--prefix", str(prefix), str(wheel)], check=True, env={**os.environ, "PIP_CONFIG_FILE": os.devnull}
    )
    theirs = {
        str(path.relative_to(prefix)): (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        for path in prefix.rglob("*")
        if path.is_file()
    }
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = f"/p/lib/{version}/site-packages"
    scheme = InstallScheme(
        purelib=site, platlib=site, headers=f"/p/include/site/{version}", scripts="/p/bin", data="/p"
    )
    ours = {
        path.removeprefix("p/"): content
        for path, content in tree(installed(wheel, tmp_path, scheme=scheme, interpreter=interpreter)).items()
    }
    metadata = f"lib/{version}/site-packages/demo_pkg-1.0.dist-info"
    theirs = {
        path: file for path, file in theirs.items() if path.rpartition("/")[2] not in ("REQUESTED", "direct_url.json")
    }
    # pip trusts the archive's mode for scripts; the specification wants all of them executable.
    assert ours.keys() == theirs.keys()
    own = {f"{metadata}/INSTALLER", f"{metadata}/RECORD", "bin/demo", "bin/demo-gui", "bin/old", "bin/native"}
    assert {path: ours[path] for path in ours.keys() - own} == {path: theirs[path] for path in theirs.keys() - own}

    def rows(record: bytes) -> set[str]:
        return {
            path
            for path, _, _ in csv.reader(record.decode().splitlines())
            if not path.endswith(("REQUESTED", "url.json"))
        }

    assert rows(ours[f"{metadata}/RECORD"][1]) == rows(theirs[f"{metadata}/RECORD"][1])


@pytest.mark.parametrize("folder", ["plain", "with space", "l" * 140, "quote'd and spaced"])
def test_launchers_run_whatever_the_interpreter_is_called(tmp_path: Path, folder: str) -> None:
    """A script starts its interpreter under a path with a space, a quote or over 127 bytes, and passes arguments on."""
    interpreter = tmp_path / folder / "python3"
    interpreter.parent.mkdir()
    interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    script = tmp_path / "script"
    script.write_bytes(shebang(str(interpreter)) + b"import sys\nprint(sys.argv[1:])\n")
    script.chmod(0o755)
    done = subprocess.run([script, "a b", "c"], capture_output=True, text=True, check=True)
    assert done.stdout == "['a b', 'c']\n"


def test_what_only_an_installer_writes_is_dropped(tmp_path: Path) -> None:
    """INSTALLER, REQUESTED, direct_url.json, bytecode and wrappers of entry points are not taken from a wheel."""
    wheel = make_wheel(
        tmp_path,
        {
            "demo_pkg-1.0.dist-info/INSTALLER": b"evil",
            "demo_pkg-1.0.dist-info/REQUESTED": b"",
            "demo_pkg-1.0.dist-info/direct_url.json": b"{}",
            "demo/__pycache__/x.cpython-311.pyc": b"code",
            "demo_pkg-1.0.data/scripts/demo": b"#!python\nold wrapper",
            "demo/REQUESTED": b"a file of the package",
        },
        entry_points=ENTRY_POINTS,
    )
    found = tree(installed(wheel, tmp_path))
    names = {path.rpartition("/")[2] for path in found}
    assert "direct_url.json" not in names
    assert f"{IN_SITE}/demo_pkg-1.0.dist-info/REQUESTED" not in found
    assert f"{IN_SITE}/demo/REQUESTED" in found
    assert not any("__pycache__" in path for path in found)
    assert found[f"{IN_SITE}/demo_pkg-1.0.dist-info/INSTALLER"][1] == b"prebuilt-spawner\n"
    assert b"old wrapper" not in found["opt/env/bin/demo"][1]


def test_modes_are_ours_and_not_the_archives(tmp_path: Path) -> None:
    """Set-user-ID, world-writable and unreadable members become 0644 or 0755."""
    wheel = make_wheel(
        tmp_path,
        {
            "demo/a": Member(b"", stat.S_IFREG | 0o6777),
            "demo/b": Member(b"", stat.S_IFREG | 0o666),
            "demo/c": Member(b"", stat.S_IFREG | 0o001),
            "demo/d": Member(b"", 0),
            "demo/e": Member(b"", stat.S_IFREG),
        },
    )
    modes = {path[-1]: mode for path, (mode, _) in tree(installed(wheel, tmp_path)).items() if "/demo/" in path}
    assert modes == {"a": 0o755, "b": 0o644, "c": 0o755, "d": 0o644, "e": 0o644}


def test_a_data_folder_in_the_dist_info_folders_spelling_is_found(tmp_path: Path) -> None:
    """`Demo.Pkg-1.0.data` beside `Demo.Pkg-1.0.dist-info` counts, whatever the file name's spelling is."""
    wheel = make_wheel(
        tmp_path,
        {"Demo.Pkg-1.0.data/scripts/run": b"#!python\n"},
        dist_info="Demo.Pkg-1.0.dist-info",
    )
    assert "opt/env/bin/run" in tree(installed(wheel, tmp_path))


def test_hashes_of_other_kinds_are_checked_and_kept(tmp_path: Path) -> None:
    """RECORD may use SHA-512; the fragment has the SHA-256 all the same."""
    content = b"content"
    digest = base64.urlsafe_b64encode(hashlib.sha512(content).digest()).decode().rstrip("=")
    wheel = make_wheel(tmp_path, {"demo.py": Member(content, record=f"sha512={digest},{len(content)}")})
    fragment = installed(wheel, tmp_path)
    (file,) = [file for file in fragment.files if file.path.endswith("demo.py")]
    assert file.sha256 == hashlib.sha256(content).hexdigest()


def test_the_same_bytes_whatever_surrounds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time zone, umask, locale, clock and the body's place do not show in the body."""
    wheel = make_wheel(tmp_path, FULL_WHEEL, entry_points=ENTRY_POINTS)
    first = fragment_bytes(installed(wheel, tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setattr(time, "time", lambda: 5e9)
    time.tzset()
    umask = os.umask(0o077)
    try:
        second = fragment_bytes(installed(wheel, other))
    finally:
        os.umask(umask)
        monkeypatch.undo()
        time.tzset()
    assert first == second


def test_the_layout_is_pinned(tmp_path: Path) -> None:
    """The bytes of a certain wheel's fragment are these, with every version of Python and of the libraries.

    When they have to change, `LAYOUT_VERSION` counts up: images that exist keep their names and their content.
    """
    wheel = make_wheel(tmp_path, FULL_WHEEL, entry_points=ENTRY_POINTS)
    assert LAYOUT_VERSION == 3
    assert hashlib.sha256(fragment_bytes(installed(wheel, tmp_path))).hexdigest() == (
        "7ea15c9dc240fbc4ff3fc58a101a37e789475b7b7ba67b94c035ff22ce9fa3ab"
    )


def test_gnu_tar_unpacks_a_fragment(tmp_path: Path) -> None:
    """GNU tar makes the same files of it as the standard library."""
    fragment = installed(make_wheel(tmp_path, FULL_WHEEL), tmp_path)
    whole = tmp_path / "whole.tar"
    whole.write_bytes(fragment_bytes(fragment) + bytes(1024))
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["tar", "-xf", whole, "-C", target], check=True)
    assert {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()} == set(tree(fragment))


names = st.text(st.characters(codec="utf-8", exclude_characters="\0/,\"'"), min_size=1, max_size=60).filter(
    lambda name: path_flaw(name) is None
)


@settings(max_examples=60, deadline=None)
@given(files=st.dictionaries(names, st.binary(max_size=3000), max_size=8))
def test_odd_names_arrive_as_they_are(files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any name that a file can have is kept, byte for byte, with its content."""
    folded = {name.casefold(): name for name in files}
    folder = tmp_path_factory.mktemp("odd")
    wheel = make_wheel(folder, {f"demo/{name}": files[name] for name in folded.values()})
    found = tree(installed(wheel, folder))
    assert {path: content for path, (_, content) in found.items() if "/demo/" in path} == {
        f"{IN_SITE}/demo/{name}": files[name] for name in folded.values()
    }


def test_a_body_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """Where the wheel turns out bad in the middle, no file is left, and an older body stays as it was."""
    wheel = make_wheel(tmp_path, {"a.py": b"good", "b.py": Member(b"bad", record="sha256=AAAA,3")})
    folder = tmp_path / "bodies"
    folder.mkdir()
    body = folder / "body.tar"
    body.write_bytes(b"older")
    with pytest.raises(Exception, match="demo-pkg"):
        install_wheel(wheel, wheel_sha256="0" * 64, scheme=SCHEME, interpreter=INTERPRETER, body=body)
    assert [path.name for path in folder.iterdir()] == ["body.tar"]
    assert body.read_bytes() == b"older"


def test_tarfile_reads_the_fragments_of_long_names(tmp_path: Path) -> None:
    """A file deep in folders keeps its whole path."""
    deep = "/".join(["folder-with-a-long-name"] * 20) + "/file.py"
    fragment = installed(make_wheel(tmp_path, {deep: b"deep"}), tmp_path)
    assert tree(fragment)[f"{IN_SITE}/{deep}"] == (0o644, b"deep")
    assert tarfile.is_tarfile(io.BytesIO(fragment_bytes(fragment)))
