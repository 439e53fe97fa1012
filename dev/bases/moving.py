"""Environments that move to another prefix with all that their packages' RECORDs list. Only the standard library."""

from __future__ import annotations

import base64
import compileall
import csv
import hashlib
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """Where packages are: the prefix, and the folder of packages below it."""

    prefix: Path
    packages: Path

    @property
    def site(self) -> Path:
        return self.prefix / self.packages

    def distributions(self) -> Iterator[Distribution]:
        """What is installed, by name."""
        found = importlib.metadata.distributions(path=[str(self.site)])
        yield from sorted((Distribution.read(self, Path(one._path)) for one in found), key=lambda one: one.name)


@dataclass(frozen=True)
class Distribution:
    """An installed package: the files that its RECORD lists but for bytecode, relative to the folder of packages."""

    environment: Environment
    metadata: Path
    name: str
    version: str
    requires: tuple[str, ...]
    files: tuple[str, ...]

    @classmethod
    def read(cls, environment: Environment, metadata: Path) -> Distribution:
        of = importlib.metadata.PathDistribution(metadata)
        with (metadata / "RECORD").open(newline="") as record:
            files = tuple(row[0] for row in csv.reader(record) if row and not row[0].endswith(".pyc"))
        name = re.sub(r"[-_.]+", "-", of.metadata["Name"]).lower()
        return cls(environment, metadata, name, of.version, tuple(of.requires or ()), files)

    def moved(self, target: Environment, *, interpreter: str) -> Distribution:
        """Copy the files; scripts name the new interpreter. RECORD is still the old one."""
        for file in self.files:
            path = _at(target, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(_at(self.environment, file), path)
            if path.parent == target.prefix / "bin":
                _rename_interpreter(path, self.environment, interpreter)
        metadata = target.site / self.metadata.name
        return Distribution(target, metadata, self.name, self.version, self.requires, self.files)

    def bytecode(self) -> list[str]:
        """What Python has compiled of the files, relative as they are."""
        found = []
        for file in self.files:
            if file.endswith(".py"):
                folder, _, name = file.rpartition("/")
                compiled = f"{folder}/__pycache__/{name[:-3]}.{sys.implementation.cache_tag}.pyc".lstrip("/")
                if _at(self.environment, compiled).exists():
                    found.append(compiled)
        return found

    def write_record(self, texts: Mapping[str, str], *, with_bytecode: bool, absent: tuple[str, ...] = ()) -> list[str]:
        """Write these texts into the metadata folder and RECORD with the hashes of what is there now.

        Args:
            texts: By name of the file.
            with_bytecode: Whether RECORD lists the bytecode.
            absent: What RECORD lists besides, though it is not there.

        Returns:
            All files, relative to the folder of packages.
        """
        for name, text in texts.items():
            (self.metadata / name).write_text(text)
        record = f"{self.metadata.name}/RECORD"
        files = sorted({*self.files, *(f"{self.metadata.name}/{name}" for name in texts)} - {record})
        rows = [self._row(file) for file in files]
        rows += [(file, "", "") for file in (*(self.bytecode() if with_bytecode else ()), *absent, record)]
        with (self.metadata / "RECORD").open("w", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(sorted(rows))
        return [*files, record]

    def _row(self, file: str) -> tuple[str, str, str]:
        content = _at(self.environment, file).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        return file, f"sha256={digest}", str(len(content))


def compile_all(folder: Path) -> None:
    """Compile everything below a folder, with all processors. What does not compile is left, as pip leaves it."""
    compileall.compile_dir(folder, quiet=2, workers=0, maxlevels=100)


def _at(environment: Environment, file: str) -> Path:
    return Path(os.path.normpath(environment.site / file))


def _rename_interpreter(script: Path, environment: Environment, interpreter: str) -> None:
    first, newline, rest = script.read_bytes().partition(b"\n")
    if first.startswith(f"#!{environment.prefix}/bin/python".encode()):
        script.write_bytes(f"#!{interpreter}".encode() + newline + rest)
