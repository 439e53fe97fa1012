"""Fragments: their two parts, what is compiled, and how they are kept."""

import csv
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prebuilt_spawner.environment.base import InstallScheme
from prebuilt_spawner.image import bytecode
from prebuilt_spawner.image.archive import read_parts
from prebuilt_spawner.image.bytecode import batches_of, modules_of, with_bytecode
from prebuilt_spawner.image.fragment import (
    Fragment,
    fragment_from_json,
    fragment_key,
    fragment_to_json,
    installed_from_json,
    installed_key,
    installed_to_json,
)

from .wheels import SITE, installed_wheel, make_probe, make_wheel, tree

IN_SITE = SITE[1:]
FILES = {
    "demo/__init__.py": b"x = 1\n",
    "demo/sub/deep.py": b"y = 2\n",
    "demo/odd.name.py": b"",
    "demo/.py": b"",
    "demo/data.txt": b"text",
    "demo/types.pyi": b"z: int\n",
    "demo_pkg-1.0.data/scripts/tool.py": b"print(1)\n",
}


def test_modules_are_all_that_pip_would_compile(tmp_path: Path) -> None:
    """Every file that ends in `.py`, scripts too, each with the place where its bytecode is looked for (PEP 3147)."""
    found = modules_of(installed_wheel(make_wheel(tmp_path, FILES), tmp_path), cache_tag="cpython-311")
    assert {module.path: module.target for module in found} == {
        "/opt/env/bin/tool.py": "opt/env/bin/__pycache__/tool.cpython-311.pyc",
        f"{SITE}/demo/__init__.py": f"{IN_SITE}/demo/__pycache__/__init__.cpython-311.pyc",
        f"{SITE}/demo/odd.name.py": f"{IN_SITE}/demo/__pycache__/odd.name.cpython-311.pyc",
        f"{SITE}/demo/sub/deep.py": f"{IN_SITE}/demo/sub/__pycache__/deep.cpython-311.pyc",
    }
    for module in found:
        name = module.path.removeprefix(f"{SITE}/")
        assert b"".join(read_parts([module.source.content])) == FILES.get(name, b"print(1)\n")


def test_modules_that_cannot_have_bytecode_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that would be too long with the interpreter's tag, and a source that is too large."""
    monkeypatch.setattr(bytecode, "MAX_MODULE_BYTES", 100)
    wheel = make_wheel(tmp_path, {f"{'n' * 250}.py": b"", "large.py": b"#" * 101, "small.py": b"#" * 100})
    found = modules_of(installed_wheel(wheel, tmp_path), cache_tag="cpython-311")
    assert [module.path for module in found] == [f"{SITE}/small.py"]


def test_batches_are_bounded_and_always_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In number and bytes; in order, none left out; one that is too large for a batch has one of its own."""
    monkeypatch.setattr(bytecode, "MAX_BATCH_MODULES", 3)
    monkeypatch.setattr(bytecode, "MAX_BATCH_BYTES", 100)
    sizes = [1, 1, 1, 1, 99, 500, 50, 50, 1]
    wheel = make_wheel(tmp_path, {f"m{number}.py": b"#" * size for number, size in enumerate(sizes)})
    modules = modules_of(installed_wheel(wheel, tmp_path), cache_tag="cpython-311")
    batches = batches_of(modules)
    assert [[module.source.size_bytes for module in batch] for batch in batches] == [
        [1, 1, 1],
        [1, 99],
        [500],
        [50, 50],
        [1],
    ]
    assert [module for batch in batches for module in batch] == list(modules)
    assert batches_of([]) == []


def test_record_lists_bytecode_as_pip_does(tmp_path: Path) -> None:
    """Without hash and size, relative to the site folder, sorted with the rest."""
    wheel = installed_wheel(make_wheel(tmp_path, FILES), tmp_path)
    compiled = {
        f"{IN_SITE}/demo/__pycache__/__init__.cpython-311.pyc": b"code",
        "opt/env/bin/__pycache__/tool.cpython-311.pyc": b"more code",
    }
    found = tree(with_bytecode(wheel, compiled, body=tmp_path / "compiled.tar"))
    assert {path: found[path] for path in compiled} == {path: (0o644, code) for path, code in compiled.items()}
    rows = list(csv.reader(found[f"{IN_SITE}/demo_pkg-1.0.dist-info/RECORD"][1].decode().splitlines()))
    assert rows == sorted(rows)
    assert ["demo/__pycache__/__init__.cpython-311.pyc", "", ""] in rows
    assert ["../../../bin/__pycache__/tool.cpython-311.pyc", "", ""] in rows
    assert {os.path.normpath(f"{IN_SITE}/{path}") for path, _, _ in rows} == set(found)


def a_fragment(folder: Path) -> tuple[Any, Fragment]:
    wheel = installed_wheel(make_wheel(folder, FILES), folder)
    return wheel, with_bytecode(wheel, {f"{IN_SITE}/x.pyc": b"code"}, body=folder / "compiled.tar")


def test_the_indexes_give_back_what_they_were_made_of(tmp_path: Path) -> None:
    """Reading undoes writing, also after the bodies were moved."""
    wheel, fragment = a_fragment(tmp_path)
    index = installed_to_json(wheel)
    assert installed_from_json(index, body=wheel.body) == wheel
    assert installed_from_json(index, body=Path("/elsewhere")).files[0] == replace(
        wheel.files[0], body=Path("/elsewhere")
    )
    index = fragment_to_json(fragment, installed=wheel)
    assert fragment_from_json(index, installed=wheel.body, compiled=tmp_path / "compiled.tar") == fragment
    moved = fragment_from_json(index, installed=Path("/a"), compiled=Path("/b"))
    assert {file.body for file in moved.files} == {Path("/a"), Path("/b")}


@pytest.mark.parametrize("which", ["installed", "fragment"])
def test_a_damaged_index_is_an_error_of_one_kind(tmp_path: Path, which: str) -> None:
    """Cut, empty, of another form or version: ValueError."""
    wheel, fragment = a_fragment(tmp_path)
    read: Callable[[bytes], object]
    if which == "installed":
        index = installed_to_json(wheel)

        def read(index: bytes) -> object:
            return installed_from_json(index, body=wheel.body)
    else:
        index = fragment_to_json(fragment, installed=wheel)

        def read(index: bytes) -> object:
            return fragment_from_json(index, installed=wheel.body, compiled=wheel.body)

    version = json.loads(index)["version"]
    damaged = [
        index[:-1],
        b"",
        b"[]",
        b"{}",
        json.dumps({**json.loads(index), "version": 0}).encode(),
        json.dumps({"version": version, "files": [[1]]}).encode(),
    ]
    for bad in damaged:
        with pytest.raises(ValueError):  # noqa: PT011 - the class is what is promised
            read(bad)


def test_keys_tell_apart_what_gives_different_files() -> None:
    """Another wheel, scheme or interpreter installs otherwise; another build of Python only compiles otherwise."""
    probe = make_probe()
    wheel = "0" * 64
    scheme = InstallScheme(purelib="/a", platlib="/b", headers="/c", scripts="/d", data="/e")
    differs = [
        (wheel, make_probe(interpreter="/usr/bin/python3")),
        (wheel, make_probe(scheme=scheme)),
        ("1" * 64, probe),
    ]
    assert len({installed_key(wheel, probe), *(installed_key(*other) for other in differs)}) == 4
    compiles = [(wheel, make_probe(build="3.11.2 (other)")), (wheel, make_probe(cache_tag="cpython-312"))]
    keys = {fragment_key(wheel, probe), *(fragment_key(*other) for other in [*differs, *compiles])}
    assert len(keys) == 6
    assert {installed_key(*other) for other in compiles} == {installed_key(wheel, probe)}
    assert fragment_key(wheel, make_probe(uid=5)) == fragment_key(wheel, probe)
    assert {len(key) for key in keys} == {64}
