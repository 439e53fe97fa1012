"""Python environments on the disk that tests fill and ask."""

import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

from prebuilt_spawner.adapters.base_probe import probe_script, read_probe
from prebuilt_spawner.environment.base import BaseProbe

SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


class Environment:
    """A virtual environment to put files into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        venv.create(self.folder, symlinks=True)
        self.site = f"{self.folder}/{SITE}"

    def write(self, files: Mapping[str, str], *, below: str = SITE) -> None:
        """Files by path; folders are made."""
        for name, text in files.items():
            path = self.folder / below / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def install(self, name: str, *files: str, version: str = "1.0", entry_points: str = "", where: str = SITE) -> None:
        """Metadata of a distribution that lists these files, and the files that do not begin with a dash."""
        info = f"{name}-{version}.dist-info"
        own = (f"{info}/METADATA", f"{info}/RECORD", *([f"{info}/entry_points.txt"] if entry_points else []))
        rows = [f"{file.removeprefix('-')},," for file in (*files, *own)]
        self.write({file: "" for file in files if not file.startswith(("-", "/"))}, below=where)
        self.write(
            {
                f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
                f"{info}/RECORD": "\n".join(rows),
                **({f"{info}/entry_points.txt": entry_points} if entry_points else {}),
            },
            below=where,
        )

    def probe(self, **variables: str) -> BaseProbe:
        """What the script says of it."""
        done = subprocess.run(
            [f"{self.folder}/bin/python", "-I", "-c", probe_script()],
            env={"PATH": f"{self.folder}/bin", **variables},
            capture_output=True,
            text=True,
            check=True,
        )
        return read_probe(done.stdout)
