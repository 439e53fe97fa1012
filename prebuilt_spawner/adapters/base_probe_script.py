"""Runs in the base image, under its own interpreter, without a network: prints what `BaseProbe` holds, as JSON.

It is sent as text, so it stands alone: the standard library of Python 3.8, nothing of ours.
"""

from __future__ import annotations

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


def _recorded_files(distribution: Any, location: str) -> list[str] | None:
    record = distribution.read_text("RECORD")
    if record is None:
        return None
    import csv

    rows = [row for row in csv.reader(record.splitlines()) if row]
    return [os.path.normpath(os.path.join(location, row[0])) for row in rows]


def _distributions() -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for distribution in importlib.metadata.distributions():
        metadata = distribution.metadata
        name = metadata["Name"] if metadata is not None else None
        path = getattr(distribution, "_path", None)
        if not name or path is None:
            continue
        name = _normalised(name)
        if name in found:
            continue  # the first on sys.path is the one that is imported
        location = os.path.realpath(os.path.dirname(str(path)))
        found[name] = {
            "name": name,
            "version": metadata["Version"] or "",
            "location": location,
            "metadata_directory": os.path.basename(str(path)),
            "installer": (distribution.read_text("INSTALLER") or "").strip(),
            "requires": metadata.get_all("Requires-Dist") or [],
            "requires_python": metadata["Requires-Python"] or "",
            "provides_extra": metadata.get_all("Provides-Extra") or [],
            "files": _recorded_files(distribution, location),
        }
    return list(found.values())


def _folders(scheme: dict[str, str], others: list[str]) -> tuple[dict[str, list[int]], dict[str, str]]:
    folders: dict[str, list[int]] = {}
    links: dict[str, str] = {}

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
        for root, names, _ in os.walk(place):
            note(root)
            for name in names:
                path = os.path.join(root, name)
                if os.path.islink(path):
                    links[path] = os.path.realpath(path)
    return folders, links


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


def report() -> dict[str, Any]:
    """What `BaseProbe` holds, as JSON values."""
    scheme = _scheme()
    stdlib = os.path.realpath(sysconfig.get_path("stdlib"))
    folders, links = _folders(scheme, [stdlib, "/usr/local/share/prebuilt-spawner"])
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
        "distributions": _distributions(),
        "folders": folders,
        "links": links,
        "executables": _executables(),
    }


if __name__ == "__main__":
    print(json.dumps(report(), sort_keys=True))
