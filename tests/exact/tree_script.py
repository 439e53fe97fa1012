"""Runs in a container, under its interpreter: prints what files there are, as JSON lines. Only the standard library.

tree_script.py tree [KNOWN]   everything; content is hashed but for files that KNOWN (an earlier output) has just so
tree_script.py code FILE      for each path of a JSON list in FILE: what code object its bytecode holds, as two hashes:
                              with the name of the source as it stands there, and with that name in its shortest form
tree_script.py hash FILE      for each path of a JSON list in FILE: the hash of its content
tree_script.py text FILE      for each path of a JSON list in FILE: its content

A line of `tree` is [path, type, mode, uid, gid, mtime in ns, size, what]; `what` is a link's target, a file's SHA-256
(for bytecode that of what follows the header, and after a space the header's form), or null where nothing was hashed.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import stat
import sys
import types

# Made by the engine for each container, and the volume that the test uses.
NOT_OF_THE_IMAGE = {
    *("/.dockerenv", "/dev", "/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf", "/proc", "/sys"),
    "/exact",
}
HEADER_BYTES = 16
FORMS = {0: "timestamp", 1: "unchecked-hash", 3: "checked-hash"}


def content(path):
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith(".pyc"):
        form = FORMS.get(int.from_bytes(data[4:8], "little"), "unknown")
        return f"{hashlib.sha256(data[HEADER_BYTES:]).hexdigest()} {form}"
    return hashlib.sha256(data).hexdigest()


def tree(known):
    folders = ["/"]
    while folders:
        folder = folders.pop()
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if path in NOT_OF_THE_IMAGE:
                continue
            status = os.lstat(path)
            mode, what, kind, size = stat.S_IMODE(status.st_mode), None, "other", 0
            if stat.S_ISDIR(status.st_mode):
                kind = "folder"
                folders.append(path)
            elif stat.S_ISLNK(status.st_mode):
                kind, what = "link", os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                kind, size = "file", status.st_size
            line = [path, kind, mode, status.st_uid, status.st_gid, status.st_mtime_ns, size]
            if kind == "file" and known is not None and known.get(path) != line[1:]:
                what = content(path)
            print(json.dumps([*line, what]))


DERIVED = {"co_lines", "co_positions", "co_lnotab", "co_branches"}


def described(value, name):
    """A code object as text, whatever order sets have and whichever values are shared in memory."""
    if isinstance(value, types.CodeType):
        facts = sorted(set(dir(value)) - DERIVED)
        parts = [getattr(value, fact) for fact in facts if fact.startswith("co_") and fact != "co_filename"]
        return "code({})".format(", ".join([name(value.co_filename), *(described(part, name) for part in parts)]))
    if isinstance(value, tuple):
        return "({})".format(", ".join(described(part, name) for part in value))
    if isinstance(value, frozenset):
        return "{{{}}}".format(", ".join(sorted(described(part, name) for part in value)))
    return f"{type(value).__name__}:{value!r}"


def code(path):
    with open(path, "rb") as file:
        value = marshal.loads(file.read()[HEADER_BYTES:])
    return [hashlib.sha256(described(value, name).encode()).hexdigest() for name in (str, os.path.normpath)]


def text(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def main():
    act, files = sys.argv[1], sys.argv[2:]
    if act == "tree":
        known = None
        if files:
            with open(files[0]) as lines:
                known = {line[0]: line[1:-1] for line in map(json.loads, lines)}
        tree(known)
        return
    with open(files[0]) as file:
        for path in json.load(file):
            print(json.dumps([path, {"code": code, "hash": content, "text": text}[act](path)]))


if __name__ == "__main__":
    main()
