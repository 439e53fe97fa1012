"""Runs in a container of the test base, as root: writes its interpreter, and what that needs, to /small.tar.

Prints where the interpreter is, and where it has its packages.
"""

import bz2
import ctypes
import decimal
import hashlib
import lzma
import os
import sqlite3
import ssl
import subprocess
import sys
import tarfile
import uuid
import zlib

LOADED = [bz2, ctypes, decimal, hashlib, lzma, sqlite3, ssl, uuid, zlib]  # for the libraries that they bring along
LEFT_OUT = {
    *("__pycache__", "ensurepip", "idlelib", "lib2to3", "test", "tests", "tkinter", "turtledemo"),
    *("dist-packages", "site-packages"),
}
FOLDERS = """
import os, site, sysconfig
paths = sysconfig.get_paths()
print(paths["purelib"], *filter(os.path.isdir, {*site.getsitepackages(), *paths.values()}))
"""


def mapped():
    """The files that this process has loaded: the C library, its loader, the libraries of the modules above."""
    with open("/proc/self/maps") as maps:
        return {line.split(maxsplit=5)[5].strip() for line in maps if line.rstrip().count("/")}


def main():
    interpreter = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    files = {interpreter, "/etc/passwd", "/etc/group", *mapped()}
    for folder, names, found in os.walk(os.path.dirname(os.__file__)):
        names[:] = [name for name in names if name not in LEFT_OUT and not name.startswith("config-")]
        files.update(os.path.join(folder, name) for name in found if not name.endswith((".pyc", ".a")))
    files = {path for path in files if os.path.isfile(path)}
    real = {os.path.realpath(path) for path in files}
    # Libraries are asked for by their short names, and the loader by /lib64 or /lib.
    beside = {os.path.dirname(path) for path in files} | {"/lib", "/lib64", "/usr/lib64"}
    for folder in filter(os.path.isdir, beside):
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if os.path.islink(path) and os.path.realpath(path) in real:
                files.add(path)
    python3 = os.path.join(os.path.dirname(interpreter), "python3")
    folders = {"/tmp", "/proc", "/sys", "/dev", "/home", "/root"}
    purelib, *others = subprocess.check_output([interpreter, "-I", "-c", FOLDERS], text=True).split()
    folders.update(others)
    with tarfile.open("/small.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        done = set()

        def add(path):
            """With the folders above it, which may be links."""
            above, name = os.path.split(path)
            if name:
                add(above)
                path = os.path.join(os.path.realpath(above), name)
                if path not in done:
                    done.add(path)
                    archive.add(path, recursive=False)
                if os.path.islink(path) and os.path.isdir(path):
                    add(os.path.realpath(path))

        links = {path for path in ("/bin", "/lib", "/lib64") if os.path.islink(path)}
        for path in sorted(files | folders | links):
            add(path)
        if python3 not in files:
            link = tarfile.TarInfo(python3.strip("/"))
            link.type, link.linkname = tarfile.SYMTYPE, os.path.basename(interpreter)
            archive.addfile(link)
    print(os.path.dirname(interpreter), purelib)


main()
