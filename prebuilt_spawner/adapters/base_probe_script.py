"""Runs in the base image, under its own interpreter, without a network: prints what `BaseProbe` holds, as JSON.

It is sent as text, so it stands alone: the standard library of Python 3.8, nothing of ours.
"""

from __future__ import annotations

import csv
import glob
import importlib.metadata
import json
import os
import platform
import pwd
import re
import sys
import sysconfig
from typing import Any


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _scheme() -> dict[str, str]:
    paths = sysconfig.get_paths()
    headers = paths["include"]
    if sys.prefix != sys.base_prefix:
        # A virtual environment has no include folder of its own in sysconfig; pip puts headers here.
        version = "python{}.{}".format(*sys.version_info[:2])
        headers = os.path.join(sys.prefix, "include", "site", version)
    found = {
        "purelib": paths["purelib"],
        "platlib": paths["platlib"],
        "headers": headers,
        "scripts": paths["scripts"],
        "data": paths["data"],
    }
    return {key: os.path.realpath(path) for key, path in found.items()}


def _search_path() -> list[str]:
    """Where modules are looked for, first to last. This interpreter was told to pass over PYTHONPATH; no other is."""
    own = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(entry)]
    found: dict[str, None] = {}
    for entry in own + sys.path:
        if os.path.exists(entry):
            found[os.path.realpath(entry)] = None
    return list(found)


class _RealPaths:
    """Absolute paths with the symlinks of their folders resolved, but not the last part: a link is a file here."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        folder, name = os.path.split(os.path.normpath(path))
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        return os.path.join(self._folders[folder], name)


def _listed_files(distribution: Any, location: str, metadata: str, real: _RealPaths) -> list[str] | None:
    record = distribution.read_text("RECORD")
    if record is not None:
        return [real(os.path.join(location, row[0])) for row in csv.reader(record.splitlines()) if row]
    installed = distribution.read_text("installed-files.txt")  # setuptools' list, from before there was RECORD
    if installed is not None:
        return [real(os.path.join(location, metadata, line)) for line in installed.splitlines() if line]
    return None


def _script_names(distribution: Any) -> list[str]:
    names = []
    group = ""
    for line in map(str.strip, (distribution.read_text("entry_points.txt") or "").splitlines()):
        if line.startswith("["):
            group = line.strip("[] ")
        elif group in ("console_scripts", "gui_scripts") and "=" in line and not line.startswith("#"):
            names.append(line.partition("=")[0].strip())
    return names


def _distributions(
    path: list[str], scripts: str, real: _RealPaths
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Those that are imported, and the others: further copies, and metadata that cannot be read."""
    found: dict[str, dict[str, Any]] = {}
    copies: list[dict[str, Any]] = []
    for distribution in importlib.metadata.distributions(path=path):
        where = getattr(distribution, "_path", None)
        if where is None:
            continue
        folder, metadata_directory = os.path.split(str(where).rstrip("/"))
        location = os.path.realpath(folder)
        try:
            metadata: Any = distribution.metadata or {}
        except FileNotFoundError:
            metadata = {}
        name = metadata.get("Name")
        many = metadata.get_all if name else lambda _: []
        entry: dict[str, Any] = {
            "name": _normalised(name or re.sub(r"(-.*)?\.(dist|egg)-info$", "", metadata_directory)),
            "version": metadata.get("Version") or "",
            "location": location,
            "metadata_directory": metadata_directory,
            "installer": (distribution.read_text("INSTALLER") or "").strip(),
            "requires": many("Requires-Dist") or [],
            "requires_python": metadata.get("Requires-Python") or "",
            "provides_extra": many("Provides-Extra") or [],
            "files": _listed_files(distribution, location, metadata_directory, real),
            "scripts": [os.path.join(scripts, script) for script in _script_names(distribution) if "/" not in script],
        }
        # The first on sys.path is the one that is imported.
        if name and entry["name"] not in found:
            found[entry["name"]] = entry
        else:
            copies.append(entry)
    return list(found.values()), copies


def _walked(
    scheme: dict[str, str], others: list[str]
) -> tuple[dict[str, list[int]], dict[str, str], dict[str, list[str] | None]]:
    """Folders at, above and below the scheme's places, links to folders, and by folder what else is in it: None where
    that cannot be read."""
    folders: dict[str, list[int]] = {}
    links: dict[str, str] = {}
    present: dict[str, list[str] | None] = {}

    def note(path: str) -> None:
        if path not in folders:
            status = os.stat(path)
            folders[path] = [status.st_mode & 0o7777, status.st_uid, status.st_gid]

    for place in list(scheme.values()) + others:
        above = place
        while above != "/":
            if os.path.isdir(above):
                note(above)
            above = os.path.dirname(above)
    for place in sorted(set(scheme.values())):
        if place in present:
            continue  # below one that was walked
        for root, names, files in os.walk(place, onerror=lambda error: present.update({error.filename: None})):
            note(root)
            present[root] = files
            for name in names:
                path = os.path.join(root, name)
                if os.path.islink(path):
                    links[path] = os.path.realpath(path)
                    files.append(name)
    return folders, links, present


class _Holdings:
    """What lies in the scheme's places, and what of it is on somebody's list."""

    def __init__(self, present: dict[str, list[str] | None]) -> None:
        self._present = present
        self._files = {f"{folder}/{name}" for folder, names in present.items() for name in names or ()}
        self._listed: set[str] = set()
        self._listed_folders: set[str] = set()

    def exists(self, path: str) -> bool:
        """Whether there is a file of this path, which has no links among its folders."""
        return path in self._files or (
            os.path.dirname(path) not in self._present
            and os.path.lexists(path)
            and (os.path.islink(path) or not os.path.isdir(path))
        )

    def those_there(self, paths: list[str]) -> list[str]:
        """Those of a list that exist, which are on a list from now on."""
        found = sorted({path for path in paths if self.exists(path)})
        self._listed.update(found)
        return found

    def unlisted(self, paths: list[str]) -> list[str]:
        """Those that exist and are on no list so far."""
        return [path for path in sorted(set(paths)) if path not in self._listed and self.exists(path)]

    def is_compiled(self, path: str) -> bool:
        """Whether it is bytecode of a listed source, or of a source that is gone and was beside listed files."""
        folder, name = os.path.split(path)
        stem, suffix = os.path.splitext(name)
        if suffix not in (".pyc", ".pyo"):
            return False
        if os.path.basename(folder) != "__pycache__":
            return f"{folder}/{stem}.py" in self._listed
        folder = os.path.dirname(folder)
        stem, tag = os.path.splitext(stem)
        if tag.startswith(".opt-"):
            stem = os.path.splitext(stem)[0]
        source = f"{folder}/{stem}.py"
        return source in self._listed or (source not in self._files and folder in self._listed_folders)

    def report(self) -> tuple[dict[str, list[str]], list[str]]:
        """By folder, the bytecode that no list names; and which folders with listed files in or below them also hold,
        in or below them, what is neither listed nor such bytecode."""
        self._listed_folders = {os.path.dirname(path) for path in self._listed}
        compiled: dict[str, list[str]] = {}
        occupied: set[str] = set()
        for folder, names in self._present.items():
            others = [name for name in names or () if f"{folder}/{name}" not in self._listed]
            found = [name for name in others if self.is_compiled(f"{folder}/{name}")]
            if found:
                compiled[folder] = sorted(found)
            if names is None or len(found) < len(others):
                occupied.add(folder)
        return compiled, sorted(_with_parents(occupied) & _with_parents(self._listed_folders))


def _with_parents(folders: set[str]) -> set[str]:
    found: set[str] = set()
    for folder in folders:
        while folder not in found and folder != "/":
            found.add(folder)
            folder = os.path.dirname(folder)
    return found


def _conda_packages(
    scheme: dict[str, str], distributions: list[dict[str, Any]], holdings: _Holdings, real: _RealPaths
) -> dict[str, dict[str, Any]]:
    """Conda's records of the packages that hold a distribution, by path. Told apart by their files: a package is often
    called otherwise than the distribution in it."""
    prefix = scheme["data"]
    sites = (f"{scheme['purelib']}/", f"{scheme['platlib']}/")
    metadata = {f"{entry['location']}/{entry['metadata_directory']}": entry for entry in distributions}
    found = {}
    for record in sorted(glob.glob(os.path.join(glob.escape(prefix), "conda-meta", "*.json"))):
        try:
            with open(record, encoding="utf-8") as stream:
                document = json.load(stream)
            files = [real(os.path.join(prefix, file)) for file in document["files"]]
            name = str(document["name"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        held = sorted({path for file in files for path in (file, os.path.dirname(file)) if path in metadata})
        if not held:
            continue
        scripts = {script for path in held for script in metadata[path]["scripts"]}
        others = [path for path in holdings.unlisted(files) if path not in scripts and not holdings.is_compiled(path)]
        found[record] = {
            "name": name,
            "metadata": held,
            "files": [path for path in others if path.startswith(sites)],
            "has_more": any(not path.startswith(sites) for path in others),
        }
    return found


def _customisers(path: list[str]) -> dict[str, str]:
    """The modules that every interpreter imports as it starts, if they are there: the path of each."""
    found: dict[str, str] = {}
    for name in ("sitecustomize", "usercustomize"):
        for folder in path:
            for file in (f"{name}/__init__.py", f"{name}.py"):
                if name not in found and os.path.isfile(os.path.join(folder, file)):
                    found[name] = os.path.join(folder, file)
    return found


def _executables() -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            if name not in found and os.path.isfile(path) and os.access(path, os.X_OK):
                found[name] = path
    return found


def _markers() -> dict[str, str]:
    version = "{}.{}.{}".format(*sys.implementation.version[:3])
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": version,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": "",  # the hub's kernel, which is nothing of the base
        "platform_system": platform.system(),
        "platform_version": "",
        "python_full_version": platform.python_version(),
        "python_version": "{}.{}".format(*sys.version_info[:2]),
        "sys_platform": sys.platform,
    }


def _glibc() -> list[int] | None:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return None
    if name != "glibc":
        return None
    return [int(part) for part in version.split(".")[:2]]


def _with_lists(
    scheme: dict[str, str], distributions: list[dict[str, Any]], present: dict[str, list[str] | None], real: _RealPaths
) -> dict[str, Any]:
    """Reduce the distributions' lists to what is there, and report what else is."""
    holdings = _Holdings(present)
    for entry in distributions:
        if entry["files"] is not None:
            entry["files"] = holdings.those_there(entry["files"])
    sites = (scheme["purelib"], scheme["platlib"])
    for entry in distributions:
        in_site = entry["location"] in sites or os.path.dirname(entry["location"]) in sites
        entry["scripts"] = holdings.unlisted(entry["scripts"]) if in_site else []
    for entry in distributions:
        holdings.those_there(entry["scripts"])
    conda = _conda_packages(scheme, distributions, holdings, real)
    for package in conda.values():
        holdings.those_there(package["files"])
    compiled, occupied = holdings.report()
    return {"conda": conda, "compiled": compiled, "occupied": occupied}


def report() -> dict[str, Any]:
    """What `BaseProbe` holds, as JSON values."""
    scheme = _scheme()
    stdlib = os.path.realpath(sysconfig.get_path("stdlib"))
    folders, links, present = _walked(scheme, [stdlib, "/usr/local/share/prebuilt-spawner", "/etc/profile.d"])
    path = _search_path()
    real = _RealPaths()
    distributions, copies = _distributions(path, scheme["scripts"], real)
    uid = os.getuid()
    try:
        account = pwd.getpwuid(uid)
        user, home = account.pw_name, account.pw_dir
    except KeyError:
        user, home = str(uid), "/"
    abi = "cp{}{}".format(*sys.version_info[:2])
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        abi += "t"
    return {
        "python_version": platform.python_version(),
        "implementation": sys.implementation.name,
        "abi": abi,
        "cache_tag": sys.implementation.cache_tag or "",
        "build": sys.version,
        "machine": platform.machine(),
        "glibc": _glibc(),
        "interpreter": sys.executable,
        "stdlib": stdlib,
        "virtual": sys.prefix != sys.base_prefix,
        "markers": _markers(),
        "scheme": scheme,
        "user": user,
        "uid": uid,
        "gid": os.getgid(),
        "home": os.environ.get("HOME") or home,
        "import_path": path,
        "customisers": _customisers(path),
        "distributions": distributions,
        "copies": copies,
        **_with_lists(scheme, distributions + copies, present, real),
        "folders": folders,
        "links": links,
        "executables": _executables(),
    }


if __name__ == "__main__":
    print(json.dumps(report(), sort_keys=True, separators=(",", ":")))
