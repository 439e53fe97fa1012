"""The probe of a base: its script's text, what it prints as a value, and where that is kept. No engine here."""

from __future__ import annotations

import json
import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from ..environment.base import BaseProbe, CondaPackage, FolderEntry, InstalledDistribution, InstallScheme
from .cache_folder import make_folder

PROBE_VERSION = 4
"""Counts up when the script reports something else, so that kept probes are made again."""


def probe_script() -> str:
    """The program that the base's interpreter is given."""
    return resources.files(__package__).joinpath("base_probe_script.py").read_text(encoding="utf-8")


def read_probe(text: str) -> BaseProbe:
    """The value for what the script printed.

    Raises:
        ValueError: The text is not a report of this version.
    """
    try:
        report: dict[str, Any] = json.loads(text)
        distributions = [_distribution(entry) for entry in report["distributions"]]
        glibc = report["glibc"]
        return BaseProbe(
            **{
                **report,
                "glibc": None if glibc is None else (glibc[0], glibc[1]),
                "scheme": InstallScheme(**report["scheme"]),
                "distributions": {entry.name: entry for entry in distributions},
                "import_path": tuple(report["import_path"]),
                "copies": tuple(_distribution(entry) for entry in report["copies"]),
                "conda": {path: _conda_package(entry) for path, entry in report["conda"].items()},
                "compiled": {folder: tuple(names) for folder, names in report["compiled"].items()},
                "occupied": frozenset(report["occupied"]),
                "folders": {
                    path: FolderEntry(mode=mode, uid=uid, gid=gid)
                    for path, (mode, uid, gid) in report["folders"].items()
                },
            }
        )
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not a report of the base probe: {error!r}") from error


def _distribution(entry: dict[str, Any]) -> InstalledDistribution:
    lists = {key: tuple(entry[key]) for key in ("requires", "provides_extra", "scripts")}
    files = None if entry["files"] is None else tuple(entry["files"])
    return InstalledDistribution(**{**entry, **lists, "files": files})


def _conda_package(entry: dict[str, Any]) -> CondaPackage:
    return CondaPackage(**{**entry, "metadata": tuple(entry["metadata"]), "files": tuple(entry["files"])})


class ProbeShelf:
    """Probes on the hub's disk, one file for each base digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, base_digest: str) -> Path:
        return self._folder / f"{base_digest}.v{PROBE_VERSION}.json"

    def get(self, base_digest: str) -> BaseProbe | None:
        """The kept probe; None where there is none that can be read."""
        try:
            return read_probe(self._path(base_digest).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def put(self, base_digest: str, text: str) -> None:
        """Keep what the script printed; another process may do the same at the same time."""
        make_folder(self._folder, cache_dir=self._folder.parent)
        handle, name = tempfile.mkstemp(dir=self._folder, prefix=".probe-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(self._path(base_digest))
