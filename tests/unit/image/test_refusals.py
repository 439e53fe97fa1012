"""Wheels that are refused: each with a sentence that names the distribution, and before anything is left on disk."""

import random
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from prebuilt_spawner.errors import UnbuildableEnvironment

from .wheels import Member, installed, make_wheel

INFO = "demo_pkg-1.0.dist-info"
DATA = "demo_pkg-1.0.data"

BAD_MEMBERS: dict[str, Mapping[str, bytes | Member]] = {
    "parent folder": {"../evil.py": b""},
    "parent folder in the middle": {"demo/../../evil.py": b""},
    "parent folder below scripts": {f"{DATA}/scripts/../../evil": b""},
    "absolute": {"/etc/passwd": b""},
    "double slash": {"demo//x.py": b""},
    "dot": {"./x.py": b""},
    "backslash": {"demo\\x.py": b""},
    "newline": {"demo/a\nb.py": b""},
    "delete character": {"demo/\x7f.py": b""},
    "whiteout": {"demo/.wh.numpy": b""},
    "opaque whiteout": {"demo/.wh..wh..opq": b""},
    "whiteout folder": {".wh.demo/x.py": b""},
    "very long part": {f"demo/{'x' * 256}": b""},
    "very long path": {"/".join(["x" * 200] * 25): b""},
    "symlink": {"demo/link": Member(b"/etc/passwd", stat.S_IFLNK | 0o777)},
    "device": {"demo/null": Member(b"", stat.S_IFCHR | 0o666)},
    "fifo": {"demo/fifo": Member(b"", stat.S_IFIFO | 0o666)},
    "socket": {"demo/socket": Member(b"", stat.S_IFSOCK | 0o666)},
    "folder without slash": {"demo/folder": Member(b"", stat.S_IFDIR | 0o755)},
    "symlink named as a folder": {"demo/": Member(b"", stat.S_IFLNK | 0o777)},
    "folder with content": {"demo/": Member(b"content", 0)},
    "differs in case": {"demo/a.py": b"1", "demo/A.py": b"1"},
    "differs in case over two places": {"x.py": b"1", f"{DATA}/purelib/X.py": b"1"},
    "differs in how accents are encoded": {"caf\u00e9.py": b"", "cafe\u0301.py": b""},
    "differs in case from a script": {"demo_pkg-1.0.data/scripts/Run": b"", "demo_pkg-1.0.data/data/bin/run": b""},
    "data folder of another": {"other-1.0.data/purelib/x.py": b""},
    "data folder of another version": {"demo_pkg-2.0.data/purelib/x.py": b""},
    "data folder of nobody": {"thing.data/purelib/x.py": b""},
    "metadata of another": {f"{DATA}/purelib/other-1.0.dist-info/METADATA": b""},
    "metadata of another version": {f"{DATA}/platlib/demo_pkg-0.9.dist-info/METADATA": b""},
    "above a header folder": {f"{DATA}/headers/../x.h": b""},
    "above the data folder": {f"{DATA}/data/../x": b""},
    "one place from two": {"x.py": b"1", f"{DATA}/purelib/x.py": b"1"},
    "script and file": {f"{DATA}/scripts/run": b"", f"{DATA}/data/bin/run": b""},
    "file and folder": {"demo": b"", "demo/x.py": b""},
    "file and folder over two places": {"demo/x.py": b"", f"{DATA}/purelib/demo": b""},
    "unknown place": {f"{DATA}/stdlib/os.py": b""},
    "file instead of a place": {f"{DATA}/purelib": b""},
    "not in RECORD": {"demo.py": Member(b"", listed=False)},
    "wrong hash": {"demo.py": Member(b"x", record="sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,1")},
    "wrong size": {"demo.py": Member(b"", record="sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,1")},
    "no hash": {"demo.py": Member(b"x", record=",1")},
    "hash of no kind": {"demo.py": Member(b"x", record="rot13=abc,1")},
    "hash that is too weak": {"demo.py": Member(b"x", record="md5=nQ46HB2oFIAt0nWv-oT9Sg,1")},
    "hash of no fixed length": {"demo.py": Member(b"x", record="shake_128=AAAA,1")},
    "hash without a kind": {"demo.py": Member(b"x", record="abc,1")},
    "size that is none": {"demo.py": Member(b"x", record="sha256=abc,one")},
    "too many columns": {"demo.py": Member(b"x", record="sha256=abc,1,2")},
    "wrong hash of a script": {f"{DATA}/scripts/x": Member(b"#!python\n", record="sha256=abc,9")},
    "wrong padding": {"demo.py": Member(b"x", record="sha256=a,1")},
}


@pytest.mark.parametrize("what", BAD_MEMBERS)
def test_a_wheel_with_a_bad_file_is_refused(tmp_path: Path, what: str) -> None:
    """The message names the distribution; nothing is left where bodies are kept, and nothing outside of it."""
    wheel = make_wheel(tmp_path, BAD_MEMBERS[what])
    bodies = tmp_path / "bodies"
    bodies.mkdir()
    with pytest.raises(UnbuildableEnvironment, match=r"demo-pkg") as caught:
        installed(wheel, bodies)
    assert str(tmp_path) not in caught.value.message
    assert "\n" not in caught.value.message
    assert list(bodies.iterdir()) == []


def test_the_file_at_fault_is_named(tmp_path: Path) -> None:
    """Where one file is at fault, the message says which."""
    with pytest.raises(UnbuildableEnvironment, match=r"demo/link"):
        installed(make_wheel(tmp_path, BAD_MEMBERS["symlink"]), tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        f"{DATA}/scripts/folder/run",
        f"{DATA}/scripts/before-notebook.d/50-x.sh",
        f"{DATA}/scripts/start-notebook.d/deep/x.sh",
        f"{DATA}/data/bin/before-notebook.d/50-x.sh",
        f"{DATA}/data/usr/local/bin/start-notebook.d/x",
        f"{DATA}/purelib/start-notebook.d/x.sh",
        "before-notebook.d/x.sh",
    ],
)
def test_a_file_that_a_starting_server_would_run_is_refused(tmp_path: Path, path: str) -> None:
    """The Jupyter images' start.sh runs all of two folders, perhaps as root; and scripts have no folders at all."""
    with pytest.raises(UnbuildableEnvironment, match=rf"demo-pkg .*{path.rpartition('/')[2]}"):
        installed(make_wheel(tmp_path, {path: b"id\n"}), tmp_path)


def test_what_no_installer_installs_does_not_count_as_a_scripts_folder(tmp_path: Path) -> None:
    """Bytecode that an old tool left among the scripts is passed over, as it is elsewhere."""
    wheel = make_wheel(tmp_path, {f"{DATA}/scripts/__pycache__/run.pyc": b"", f"{DATA}/scripts/start-notebook.d": b""})
    assert [file.path for file in installed(wheel, tmp_path).files if "bin/" in file.path] == [
        "opt/env/bin/start-notebook.d"
    ]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which of the two is right would depend on the reader."""
    wheel = make_wheel(tmp_path, [("demo.py", b"one"), ("demo.py", b"two")])
    with pytest.raises(UnbuildableEnvironment, match=r"demo-pkg.*demo\.py"):
        installed(wheel, tmp_path)


BAD_WHEELS: dict[str, dict[str, Any]] = {
    "other name": {"metadata": b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\n"},
    "other version": {"metadata": b"Metadata-Version: 2.1\nName: demo-pkg\nVersion: 1.1\n"},
    "no name": {"metadata": b"Metadata-Version: 2.1\nVersion: 1.0\n"},
    "a path as name": {"metadata": b"Metadata-Version: 2.1\nName: ../demo-pkg\nVersion: 1.0\n"},
    "no version": {"metadata": b"Metadata-Version: 2.1\nName: demo-pkg\n"},
    "version that is none": {"metadata": b"Name: demo-pkg\nVersion: latest\n"},
    "metadata that is not text": {"metadata": b"Name: \xff\xfe\n"},
    "other dist-info name": {"dist_info": "other-1.0.dist-info"},
    "other dist-info version": {"dist_info": "demo_pkg-2.0.dist-info"},
    "dist-info without version": {"dist_info": "demo_pkg.dist-info"},
    "file name of no wheel": {"filename": "demo_pkg-1.0.whl"},
    "other file name": {"filename": "demo_pkg-1.1-py3-none-any.whl"},
    "wheel version 2": {"wheel_file": b"Wheel-Version: 2.0\nRoot-Is-Purelib: true\n"},
    "wheel version 10": {"wheel_file": b"Wheel-Version: 10.0\nRoot-Is-Purelib: true\n"},
    "no wheel version": {"wheel_file": b"Root-Is-Purelib: true\n"},
    "empty wheel version": {"wheel_file": b"Wheel-Version:\nRoot-Is-Purelib: true\n"},
    "wheel version that is none": {"wheel_file": b"Wheel-Version: 1.x\nRoot-Is-Purelib: true\n"},
    "WHEEL that is not text": {"wheel_file": b"Wheel-Version: 1.0\nGenerator: \xff\n"},
    "empty RECORD": {"record": b""},
    "RECORD with a row without end": {"record": b"x" * 200_000 + b",,\n"},
    "RECORD with an empty row": {"record": b"demo.py,sha256=x,1\n\n"},
    "RECORD with an open quotation mark": {"record": b'"demo.py,sha256=x,1\n'},
    "RECORD with a null character": {"record": b"demo\0.py,sha256=x,1\n"},
    "RECORD that is not text": {"record": b"\xff\xfe,,\n"},
}


@pytest.mark.parametrize("what", BAD_WHEELS)
def test_a_wheel_with_bad_metadata_is_refused(tmp_path: Path, what: str) -> None:
    """Names, versions, RECORD and entry points that are not as the specification says are the wheel's fault."""
    with pytest.raises(UnbuildableEnvironment, match=r"demo.pkg"):
        installed(make_wheel(tmp_path, {"demo.py": b"x"}, **BAD_WHEELS[what]), tmp_path)


BAD_ENTRY_POINTS = {
    "name in a folder": "[console_scripts]\na/b = demo:main\n",
    "name above": "[console_scripts]\n.. = demo:main\n",
    "name of a whiteout": "[console_scripts]\n.wh.python3 = demo:main\n",
    "name of two words": "[console_scripts]\na b = demo:main\n",
    "name with a bracket": "[console_scripts]\na[b] = demo:main\n",
    "no name": "[console_scripts]\n = demo:main\n",
    "long name": f"[console_scripts]\n{'x' * 256} = demo:main\n",
    "no attribute": "[console_scripts]\na = demo\n",
    "empty attribute": "[console_scripts]\na = demo:\n",
    "attribute that begins with a dot": "[console_scripts]\na = demo:.main\n",
    "module that ends with a dot": "[console_scripts]\na = demo.:main\n",
    "module with a hyphen": "[console_scripts]\na = my-demo:main\n",
    "two colons": "[console_scripts]\na = demo:main:other\n",
    "code": "[console_scripts]\na = demo:main();import os\n",
    "more after the extras": "[console_scripts]\na = demo:main [x] y\n",
    "no value": "[console_scripts]\na\n",
    "no value in another group": "[other]\na\n",
    "semicolon": "[other]\n; a\n",
    "no group": "a = b\n",
    "a byte order mark": "\ufeff[console_scripts]\na = demo:main\n",
    "one name in both groups": "[console_scripts]\na = demo:x\n[gui_scripts]\na = demo:y\n",
    "one name twice": "[console_scripts]\na = demo:x\na = demo:y\n",
    "one name twice in another group": "[other]\na = demo:x\na = demo:y\n",
    "names that differ in case": "[console_scripts]\na = demo:x\nA = demo:y\n",
    "interpolation": "[console_scripts]\na = %(b)s:x\n",
}


@pytest.mark.parametrize("what", BAD_ENTRY_POINTS)
def test_a_wheel_with_bad_entry_points_is_refused(tmp_path: Path, what: str) -> None:
    """Commands whose name or object is none, and, in any group, what `importlib.metadata` cannot read."""
    with pytest.raises(UnbuildableEnvironment, match=r"demo-pkg") as caught:
        installed(make_wheel(tmp_path, {"demo.py": b"x"}, entry_points=BAD_ENTRY_POINTS[what]), tmp_path)
    assert "\n" not in caught.value.message


def test_two_dist_info_folders_are_refused(tmp_path: Path) -> None:
    """A wheel is one distribution."""
    with pytest.raises(UnbuildableEnvironment, match=r"demo-pkg"):
        installed(make_wheel(tmp_path, {"other-1.0.dist-info/METADATA": b""}), tmp_path)


@pytest.mark.parametrize("missing", ["METADATA", "WHEEL", "RECORD"])
def test_a_wheel_without_its_metadata_is_refused(tmp_path: Path, missing: str) -> None:
    """Each of the three files has to be there."""
    whole = make_wheel(tmp_path, {"demo.py": b"x"})
    folder = tmp_path / "less"
    folder.mkdir()
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(folder / whole.name, "w") as target:
        for info in source.infolist():
            if not info.filename.endswith(missing):
                target.writestr(info, source.read(info))
    with pytest.raises(UnbuildableEnvironment, match=r"demo-pkg"):
        installed(folder / whole.name, tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"PK\x05\x06" + bytes(17), b"PK\x05\x06" + bytes(18)]
)
def test_what_is_not_a_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    """An error page, an empty file, an empty archive."""
    wheel = tmp_path / "demo_pkg-1.0-py3-none-any.whl"
    wheel.write_bytes(content)
    with pytest.raises(UnbuildableEnvironment, match=r"demo.pkg"):
        installed(wheel, tmp_path)


def test_a_damaged_archive_is_the_wheels_fault_wherever_the_damage_is(tmp_path: Path) -> None:
    """Whatever byte is changed or cut off: the wheel is refused, or its files are what they were; no other error."""
    wheel = make_wheel(
        tmp_path, {"demo/a.py": b"print(1)\n" * 50, "demo/b.py": b"x"}, entry_points="[console_scripts]\na = b:c\n"
    )
    good = wheel.read_bytes()
    right = {file.path: file.sha256 for file in installed(wheel, tmp_path).files}
    randomness = random.Random(7)
    for number in range(500):
        bad = bytearray(good)
        if number % 6 == 0:
            del bad[randomness.randrange(len(bad)) :]
        else:
            for _ in range(randomness.choice((1, 1, 4))):
                bad[randomness.randrange(len(bad))] = randomness.randrange(256)
        wheel.write_bytes(bad)
        try:
            found = {file.path: file.sha256 for file in installed(wheel, tmp_path).files}
        except UnbuildableEnvironment:
            continue
        # RECORD and a mode may have been hit; no content that is listed with a hash can have been.
        for path in right.keys() & found.keys():
            assert found[path] == right[path] or path.endswith(("/RECORD", "/bin/a"))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """The bound is on the unpacked files together, as the archive's directory announces them."""
    wheel = make_wheel(tmp_path, {"a": bytes(600_000), "b": bytes(600_000)})
    assert wheel.stat().st_size < 10_000
    with pytest.raises(UnbuildableEnvironment, match=r"demo-pkg is too large"):
        installed(wheel, tmp_path, max_unpacked_bytes=1_200_000)
    assert installed(wheel, tmp_path, max_unpacked_bytes=1_300_000).size_bytes > 1_200_000


def test_a_bomb_that_announces_less_than_it_holds_is_refused(tmp_path: Path) -> None:
    """What comes out of a member is never more than was announced."""
    wheel = make_wheel(tmp_path, {"a": bytes(1_000_000)})
    size = (1_000_000).to_bytes(4, "little")
    assert wheel.read_bytes().count(size) == 2
    wheel.write_bytes(wheel.read_bytes().replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(UnbuildableEnvironment, match=r"demo-pkg"):
        installed(wheel, tmp_path, max_unpacked_bytes=2000)


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    """Nobody has the password."""
    wheel = make_wheel(tmp_path, {"demo.py": b"x"})
    content = bytearray(wheel.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= 1
    wheel.write_bytes(content)
    with pytest.raises(UnbuildableEnvironment, match=r"demo-pkg.*encrypted"):
        installed(wheel, tmp_path)


def test_a_wheel_that_is_not_there_is_not_the_wheels_fault(tmp_path: Path) -> None:
    """A missing file is an OSError, which the caller tells apart."""
    with pytest.raises(FileNotFoundError):
        installed(tmp_path / "demo_pkg-1.0-py3-none-any.whl", tmp_path)
