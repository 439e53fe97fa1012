"""Wheels of every shape: we install what pip installs, or refuse.

Where the two differ is said in `DIFFERENCES`, each with its reason, and nowhere else. Bytecode is left out: pip is told
not to compile, and ours is made in a later step.

`PREBUILT_SPAWNER_PIP_EXAMPLES` is the number of wheels to try; some thousands are a long run.
"""

import base64
import csv
import hashlib
import io
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prebuilt_spawner.environment.base import InstallScheme
from prebuilt_spawner.errors import UnbuildableEnvironment
from prebuilt_spawner.image.bytecode import with_bytecode
from prebuilt_spawner.image.install import install_wheel
from prebuilt_spawner.image.wheel import path_flaw

from . import pip_install
from .wheels import tree

EXAMPLES = int(os.environ.get("PREBUILT_SPAWNER_PIP_EXAMPLES", "400"))
PREFIX = "/p"
SCHEME = InstallScheme(
    purelib="/p/lib/python3.11/site-packages",
    platlib="/p/lib64/python3.11/site-packages",
    headers="/p/include/site/python3.11",
    scripts="/p/bin",
    data="/p",
)
INTERPRETER = sys.executable
Tree = dict[str, tuple[int, bytes]]


# -- wheels -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class File:
    """A member of an archive, and what its RECORD says of it."""

    path: str
    content: bytes
    mode: int = stat.S_IFREG | 0o644
    hash_name: str = "sha256"
    has_size: bool = True
    is_listed: bool = True


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """What is written into an archive."""

    name: str
    version: str
    stem: str
    metadata_name: str
    files: tuple[File, ...]
    entry_points: str | None
    wheel_file: str
    extra_rows: tuple[tuple[str, str, str], ...] = ()
    line_end: str = "\n"
    is_reversed: bool = False
    is_stored: bool = False
    folders: tuple[str, ...] = ()

    @property
    def info(self) -> str:
        """Its metadata folder."""
        return f"{self.stem}.dist-info"

    def write(self, folder: Path) -> Path:
        """The archive, in this folder."""
        text = f"Metadata-Version: 2.1\nName: {self.metadata_name}\nVersion: {self.version}\n"
        files = [
            *self.files,
            File(path=f"{self.info}/METADATA", content=text.encode()),
            File(path=f"{self.info}/WHEEL", content=self.wheel_file.encode()),
        ]
        if self.entry_points is not None:
            files.append(File(path=f"{self.info}/entry_points.txt", content=self.entry_points.encode()))
        rows = [_row(file) for file in files if file.is_listed]
        rows += [*self.extra_rows, (f"{self.info}/RECORD", "", "")]
        record = io.StringIO(newline="")
        csv.writer(record, lineterminator=self.line_end).writerows(rows)
        files.append(File(path=f"{self.info}/RECORD", content=record.getvalue().encode()))
        path = folder / f"{self.name}-{self.version}-py3-none-any.whl"
        kind = zipfile.ZIP_STORED if self.is_stored else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", kind) as archive:
            for name in self.folders:
                archive.writestr(zipfile.ZipInfo(f"{name}/"), b"")
            for file in reversed(files) if self.is_reversed else files:
                info = zipfile.ZipInfo(file.path)
                info.external_attr = file.mode << 16
                info.compress_type = kind
                archive.writestr(info, file.content)
        return path


def _row(file: File) -> tuple[str, str, str]:
    digest = base64.urlsafe_b64encode(hashlib.new(file.hash_name, file.content).digest()).decode().rstrip("=")
    return file.path, f"{file.hash_name}={digest}", str(len(file.content)) if file.has_size else ""


def _text(**options: Any) -> st.SearchStrategy[str]:
    return st.text(st.characters(codec="utf-8", exclude_characters="/\0\r"), **options)


PARTS = st.one_of(
    st.sampled_from(["demo", "a", "b", "x.py", "__init__.py", "py.typed", "__main__.py", "mod.so", "README", "run"]),
    st.sampled_from(
        ["caf\u00e9", "caf\u00e8", "Demo", "\u4e2d\u6587.py", "\U0001f40d", "\u00df", "\ufb01", " x ", "x."]
    ),
    st.sampled_from(
        ['"q"', "a,b", "it's", "a:b", "%41", "~", "-rf", "#x", "a;b", "[x]", "$HOME", "x\u00a0y", "x\u200by"]
    ),
    st.sampled_from(
        [".hidden", "...", "__pycache__", "x.pth", "z.egg-info", "INSTALLER", "RECORD", "x" * 255, "\u202e"]
    ),
    _text(min_size=1, max_size=12).filter(lambda part: path_flaw(part) is None),
)
"""Of paths, such as wheels may have."""
ODD_PARTS = st.one_of(
    st.sampled_from(
        ["..", ".", "cafe\u0301", "DEMO", "SS", "x.data", "y.dist-info", ".wh.x", "a\\b", "a\nb", "x" * 256]
    ),
    _text(max_size=12),
)
SCRIPTS = st.builds(
    lambda first, end, rest: (first + end + rest).encode(),
    st.sampled_from(
        [
            "#!python",
            "#!python",
            "#!pythonw",
            "#!python3",
            "#!python -E",
            "#!python\t-u",
            "#!pythonista",
            "#!/usr/bin/env python",
            "#! python",
            "#!/bin/sh",
            "\x7fELF",
            "\n#!python",
        ]
    ),
    st.sampled_from(["\n", "\r\n", "", " \n"]),
    st.sampled_from(["", "x = 1\n", "x = 1\r\n", "\n", "x", "#!python\n" * 30]),
)
CONTENTS = st.one_of(
    st.just(b""), st.binary(max_size=40), st.sampled_from([b"print('x')\n", b"def f(:\n", bytes(70_000)]), SCRIPTS
)
MODES = st.one_of(
    st.just(stat.S_IFREG | 0o644),
    st.builds(lambda permissions: stat.S_IFREG | permissions, st.integers(0, 0o7777)),
    st.sampled_from([0, 0o755, stat.S_IFREG]),
)
ODD_MODES = st.sampled_from([stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFCHR])
COMMANDS = st.sampled_from(
    [
        "run",
        "pip",
        "pip3",
        "easy_install",
        "Start",
        "run.py",
        "run-it",
        "run_it",
        "run+",
        "l\u00e4uft",
        "x" * 200,
        "-x",
        "2",
        "x.exe",
    ]
)
ODD_COMMANDS = st.one_of(
    st.sampled_from(["run it", "a/b", "..", "[x", "#x", ";x", "%x", "\u00e4\u0308", "run=", "Run", "x" * 256]),
    _text(max_size=5),
)
OBJECTS = st.sampled_from(
    [
        "demo:main",
        "demo.cli:main",
        "demo:App.run",
        "demo:main [x]",
        "demo:main[x,y]",
        "demo:main [x.y]",
        "demo : main",
        "1:2",
        "d\u00e9mo:m\u00e0in",
    ]
)
ODD_OBJECTS = st.one_of(
    st.sampled_from(
        ["demo", "demo:", ":main", "demo:.x", "demo:a:b", "my-demo:main", "demo:x # x", "demo:x()", "demo.:x"]
    ),
    _text(max_size=5),
)
GROUPS = st.sampled_from(["console_scripts", "console_scripts", "gui_scripts", "other"])
ODD_GROUPS = st.sampled_from(["console_scripts ", "Console_Scripts", "", "console_scripts]"])


@st.composite
def entry_points(draw: st.DrawFn, odd: bool) -> str:
    """The text of an entry_points.txt."""
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    commands = st.one_of(COMMANDS, ODD_COMMANDS) if odd else COMMANDS
    objects = st.one_of(OBJECTS, ODD_OBJECTS) if odd else OBJECTS
    lines = []
    for group in draw(
        st.lists(st.one_of(GROUPS, ODD_GROUPS) if odd else GROUPS, min_size=1, max_size=3, unique=not odd)
    ):
        indent = draw(st.sampled_from(["", "", "  ", "\t"]))
        lines.append(f"{indent}[{group}]")
        for name, value in draw(st.lists(st.tuples(commands, objects), max_size=2, unique_by=lambda pair: pair[0])):
            equals = draw(st.sampled_from([" = ", "=", " =", "\t= "]))
            lines.append(f"{indent}{name}{equals}{value}")
        lines += draw(st.sampled_from([[], [""], ["# a = b"], *([["; a = b"], ["nothing"]] if odd else [])]))
    return end.join(lines) + draw(st.sampled_from([end, ""]))


@st.composite
def files(draw: st.DrawFn, stem: str, odd: bool) -> File:
    """A file somewhere in the wheel."""
    spellings = [stem, stem, stem.replace("_", "."), stem.upper(), *(["other-1.0", "x"] if odd else [])]
    data = f"{draw(st.sampled_from(spellings))}.data"
    parts = st.one_of(PARTS, ODD_PARTS) if odd else PARTS
    folders = st.one_of(
        st.just([]), st.lists(parts, max_size=3), st.lists(st.sampled_from("abc"), min_size=12, max_size=20)
    )
    inner = "/".join([*draw(folders), draw(parts)])
    own = draw(st.sampled_from(["INSTALLER", "REQUESTED", "direct_url.json", "RECORD.jws", "RECORD.p7s"]))
    place = draw(
        st.sampled_from(["root", "root", "scripts", "headers", "data", "purelib", "platlib", "info", "licenses", "own"])
    )
    path = {
        "root": inner,
        "scripts": f"{data}/scripts/{inner if odd else draw(parts)}",
        "info": f"{stem}.dist-info/{inner}",
        "licenses": f"{stem}.dist-info/licenses/{inner}",
        "own": f"{stem}.dist-info/{own}",
    }.get(place, f"{data}/{'' if odd and draw(st.booleans()) else f'{place}/'}{inner}")
    return File(
        path=path,
        content=draw(SCRIPTS if place == "scripts" else CONTENTS),
        mode=draw(st.one_of(MODES, ODD_MODES) if odd else MODES),
        hash_name=draw(st.sampled_from(["sha256", "sha256", "sha384", "sha512", *(["md5"] if odd else [])])),
        has_size=draw(st.sampled_from([True, True, True, False])),
        is_listed=not (place == "own" and "RECORD" in own)
        and (not odd or draw(st.sampled_from([True, True, True, False]))),
    )


@st.composite
def wheels(draw: st.DrawFn) -> Wheel:
    """A wheel that is right, or one of four that may have anything."""
    odd = draw(st.sampled_from([False, False, False, True]))
    words = draw(st.lists(st.sampled_from(["demo", "Pkg", "x1"]), min_size=1, max_size=3))
    name = draw(st.sampled_from("_._")).join(words)
    version = draw(st.sampled_from(["1.0", "1.0", "2.0.post1", "1.0rc1", "1.0+local.1", "1!2.0"]))
    stem = f"{draw(st.sampled_from([name, name, name.lower().replace('.', '_'), name.upper()]))}-{version}"
    members = {file.path: file for file in draw(st.lists(files(stem, odd), max_size=6))}
    for own in ("METADATA", "WHEEL", "RECORD", "entry_points.txt"):
        members.pop(f"{stem}.dist-info/{own}", None)
    rows = st.tuples(PARTS, st.sampled_from(["", "sha256=abc"]), st.sampled_from(["", "3"]))
    formats = (
        ["Wheel-Version: 1.0"] * 3 + ["Wheel-Version: 1.9", "wheel-version:1"] + (["Wheel-Version: 2.0"] if odd else [])
    )
    roots = ["Root-Is-Purelib: true"] * 3 + ["Root-Is-Purelib: false", "root-is-purelib:  TRUE", "Tag: x"]
    return Wheel(
        name=name,
        version=version,
        stem=stem,
        metadata_name=draw(st.sampled_from([name, name.replace("_", "-"), name.lower()])),
        files=tuple(members.values()),
        entry_points=draw(st.one_of(st.none(), entry_points(odd))),
        wheel_file=f"{draw(st.sampled_from(formats))}\n{draw(st.sampled_from(roots))}\n",
        extra_rows=tuple(row for row in draw(st.lists(rows, max_size=1)) if row[0] not in members),
        line_end=draw(st.sampled_from(["\n", "\n", "\r\n"])),
        is_reversed=draw(st.booleans()),
        is_stored=draw(st.booleans()),
        folders=tuple(draw(st.lists(st.sampled_from(["folder", f"{stem}.data", f"{stem}.data/scripts"]), max_size=1))),
    )


# -- both installations -----------------------------------------------------------------------------------------------


class Pip:
    """The pip of this interpreter's environment, in a process that takes one wheel after the other."""

    def __init__(self, folder: Path) -> None:
        self.prefix = folder / "prefix"
        self._process = subprocess.Popen(
            [sys.executable, "-I", pip_install.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={"PATH": os.defpath, "PIP_CONFIG_FILE": os.devnull, "HOME": str(folder)},
        )

    def install(self, wheel: Path, name: str) -> str:
        """Put it below `prefix`, which is emptied before; what pip raised, or ""."""
        places = {
            place: f"{self.prefix}{getattr(SCHEME, place).removeprefix(PREFIX)}"
            for place in ("purelib", "platlib", "scripts", "data")
        }
        places["headers"] = f"{self.prefix}{SCHEME.headers.removeprefix(PREFIX)}/{name}"
        task = {"wheel": str(wheel), "name": name, "scheme": places, "prefix": str(self.prefix)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return str(json.loads(self._process.stdout.readline())["error"])

    def tree(self) -> Tree:
        """What is there: files by path below the prefix."""
        found = {}
        for root, _, names in os.walk(self.prefix):
            for name in names:
                path = Path(root, name)
                found[str(path.relative_to(self.prefix))] = (stat.S_IMODE(path.lstat().st_mode), path.read_bytes())
        return found

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


@pytest.fixture(scope="module")
def pip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pip]:
    """One for all examples."""
    running = Pip(tmp_path_factory.mktemp("pip"))
    yield running
    running.close()


def record_rows(files: Tree, record: str) -> dict[str, tuple[str, str]]:
    """Hash and size by path below the prefix, of the rows of a RECORD whose files are there."""
    folder = record.split(".dist-info/")[0].rpartition("/")[0]
    rows = csv.reader(io.StringIO(files[record][1].decode(), newline=""))
    found = {os.path.normpath(f"{folder}/{path}"): (hash_, size) for path, hash_, size in rows}
    return {path: row for path, row in found.items() if path in files}


# -- what may differ --------------------------------------------------------------------------------------------------

DIFFERENCES = {
    "installer": "INSTALLER names the installer; REQUESTED and direct_url.json of a wheel are left out; pip keeps them",
    "bytecode": "what a wheel has in `__pycache__` could do something else than the source beside it; pip installs it",
    "launchers": "the text of a program for an entry point is the installer's own; its first line is not",
    "modes": "the specification has all of `scripts` executable; pip leaves that to the archive",
    "aliases": "pip gives itself and easy_install commands with version numbers in place of those that are declared",
    "headers": "their folder has the distribution's name as its metadata spells it, not as somebody asked for it",
    "references": "pip cannot read an entry point with a space at its colon or a dot in an extra, which are allowed",
    "sizes": "a size that the wheel's RECORD leaves out is filled in; pip leaves it out as well",
}
"""All differences, with their reasons."""
_ALIAS = re.compile(r"bin/(pip|easy_install-)[0-9.]+")


def comparable(
    found: Tree, record: str, launchers: set[str], *, listed_twice: tuple[str, ...]
) -> dict[str, tuple[int, bytes, str]]:
    """Mode, content and row of RECORD by path, without what may differ: pip keeps a wheel's further row of a file as it
    is, whatever it says."""
    info = record.rpartition("/")[0]
    rows = record_rows(found, record)
    assert set(rows) == set(found), "RECORD lists all files"
    kept = {}
    for path, (mode, content) in found.items():
        folder, _, name = path.rpartition("/")
        hash_, _ = rows[path]
        if _ALIAS.fullmatch(path):
            continue
        if "__pycache__" in folder.split("/") or (folder == info and name in ("REQUESTED", "direct_url.json")):
            continue
        if folder == info and name in ("INSTALLER", "RECORD"):
            content, hash_ = b"", ""
        if path.endswith(listed_twice):
            hash_ = ""
        if path in launchers:
            content, hash_ = content.partition(b"\n")[0], ""
        if folder == SCHEME.scripts.removeprefix(f"{PREFIX}/"):
            mode = 0o755
        kept[path] = mode, content, hash_
    return kept


def check_rows(found: Tree, record: str) -> None:
    """Each row of our own RECORD has the hash and the size of its file, but for RECORD's own and its signatures'."""
    for path, (hash_, size) in record_rows(found, record).items():
        content = found[path][1]
        if path.rpartition("/")[2] in ("RECORD", "RECORD.jws", "RECORD.p7s") and not hash_:
            continue
        name, _, value = hash_.partition("=")
        digest = base64.urlsafe_b64encode(hashlib.new(name, content).digest()).decode().rstrip("=")
        assert (value, size) == (digest, str(len(content))), path


def test_every_wheel_is_installed_as_pip_installs_it_or_refused(pip: Pip, tmp_path: Path) -> None:
    """Equal trees, file by file, in the scheme's places only; or a refusal; never another error."""
    outcomes: Counter[str] = Counter()

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(wheels())
    def check(wheel: Wheel) -> None:
        archive = wheel.write(tmp_path)
        try:
            installed = install_wheel(
                archive, wheel_sha256="0" * 64, scheme=SCHEME, interpreter=INTERPRETER, body=tmp_path / "body.tar"
            )
        except UnbuildableEnvironment:
            outcomes["refused"] += 1
            return
        fragment = with_bytecode(installed, {}, body=tmp_path / "compiled.tar")
        assert all(file.path.startswith("p/") for file in fragment.files)
        ours = {path.removeprefix("p/"): file for path, file in tree(fragment).items()}
        error = pip.install(archive, wheel.metadata_name)
        if "Invalid specification" in error or "callable suffix is required" in error:
            outcomes["refused by pip"] += 1
            return
        assert error == ""
        theirs = pip.tree()
        archive.unlink()
        record = next(path for path in ours if path.endswith(f"/{wheel.info}/RECORD"))
        launchers = {path for path in ours if path.startswith("bin/") and b"\nimport sys\n\nfrom " in ours[path][1]}
        check_rows(ours, record)
        twice = tuple(path for path, *_ in wheel.extra_rows if path)
        left_out = partial(comparable, record=record, launchers=launchers, listed_twice=twice)
        assert left_out(ours) == left_out(theirs)
        outcomes["installed"] += 1

    check()
    print(outcomes)
    assert outcomes["installed"] > outcomes["refused"] / 3, "most wheels are right"
