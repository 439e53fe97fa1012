"""The same environment twice: as we assemble it, and as pip installs it on the same base."""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import tomli_w

from prebuilt_spawner.build.provider import Environment
from prebuilt_spawner.environment.lock import Lock

from .machines import VOLUME, Machine
from .trees import Difference, Tree, differences, differing_bytecode, unknown_content

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

PYLOCK = "/usr/local/share/prebuilt-spawner/pylock.toml"

_PIP = (
    *("python3", "-m", "pip", "install", "--no-deps", "--no-index", "--no-cache-dir"),
    *("--break-system-packages", "--root-user-action=ignore", "--disable-pip-version-check"),
)


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base image, looked into.

    Attributes:
        kind: See `KINDS`.
        reference: Its name.
        machine: A container of it.
        tree: Its files, without their content.
    """

    kind: str
    reference: str
    machine: Machine
    tree: Tree


@dataclass(kw_only=True, repr=False)
class Images:
    """An environment twice.

    Attributes:
        base: What both stand on.
        environment: What both hold.
        ours, pips: A container of each.
        our_tree, pips_tree: Their files, with the content of what is not as in the base.
    """

    base: Base
    environment: Environment
    ours: Machine
    pips: Machine
    our_tree: Tree
    pips_tree: Tree
    _texts: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.environment.image} on the {self.base.kind} base>"

    def both(self, look: Callable[[Machine], T]) -> tuple[T, T]:
        """What is found in ours and in pip's container, looked into at the same time."""
        with ThreadPoolExecutor(2) as threads:
            ours, pips = threads.map(look, (self.ours, self.pips))
        return ours, pips

    def differences(self) -> list[Difference]:
        """All but those of times."""
        for tree, machine, other in (
            (self.our_tree, self.ours, self.pips_tree),
            (self.pips_tree, self.pips, self.our_tree),
        ):
            tree.learn(machine.hashes(unknown_content(tree, other)))
        bytecode = differing_bytecode(self.our_tree, self.pips_tree)
        our_code, pips_code = self.both(lambda machine: machine.code(bytecode))
        code = {path: _aspect(our_code[path], pips_code[path]) for path in bytecode}
        found = differences(self.our_tree, self.pips_tree, code=code)
        texts = [one.path for one in found if one.aspect == "content" and not one.path.endswith(".pyc")]
        our_texts, pips_texts = self.both(lambda machine: machine.texts(texts))
        self._texts = {path: (our_texts[path], pips_texts[path]) for path in texts}
        return found

    def has_texts(self, path: str) -> bool:
        """Whether `differences` found this file's content to differ."""
        return path in self._texts

    def texts(self, path: str) -> tuple[str, str]:
        """Ours and pip's content of a file that `differences` found to differ."""
        return self._texts[path]


def installed_by_pip(
    base: Base, machine: Machine, lock: Lock, pylock: str, wheels: Path, *, beside: Collection[str] = ()
) -> None:
    """Have the base's own pip install a lock as root, from wheels that are here already.

    Args:
        machine: A container of the base.
        lock: What is installed.
        pylock: The same as the image has it.
        wheels: The folder of a wheel store that has fetched them.
        beside: Names that pip leaves where they are and installs once more in its own place: the distribution's. The
            distribution's pip does so by itself; this one would remove them, or fail.
    """
    version = machine.python("import pip; print(pip.__version__)")
    assert tuple(map(int, version.split(".")[:2])) >= (26, 1), f"pip {version} of the base knows no locks: make it anew"
    files: dict[str, bytes | Path] = {}
    for wheel in lock.wheels:
        name = f"wheels/{wheel.filename}"
        assert wheel.url in pylock
        pylock = pylock.replace(wheel.url, f"file://{VOLUME}/{name}")
        files[name] = wheels / wheel.sha256[:2] / wheel.sha256 / wheel.filename
    machine.put(files)
    packages = tomllib.loads(pylock)["packages"]
    for options, chosen in (
        ([], [package for package in packages if package["name"] not in beside]),
        (["--ignore-installed"], [package for package in packages if package["name"] in beside]),
    ):
        if chosen:
            machine.put({"pylock.toml": _pylock(chosen)})
            environment = {"HOME": f"{VOLUME}/home", "TMPDIR": VOLUME}
            machine.run(
                *_PIP, *options, "-r", posixpath.join(VOLUME, "pylock.toml"), user="root", environment=environment
            )


def _aspect(ours: list[str], pips: list[str]) -> str:
    (our_code, our_essence), (pips_code, pips_essence) = ours, pips
    return "content" if our_essence != pips_essence else "source" if our_code != pips_code else ""


def _pylock(packages: list[Mapping[str, object]]) -> bytes:
    return tomli_w.dumps({"lock-version": "1.0", "created-by": "tests", "packages": packages}).encode()
