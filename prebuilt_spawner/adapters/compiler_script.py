"""Runs in the base image, under its own interpreter, without a network or mounts: makes bytecode of sources.

It is sent as text, so it stands alone: the standard library of Python 3.8, nothing of ours. What comes in on standard
input is compiled and never run:

    {"modules": [[path, size], …]}\\n        one batch; the sources follow, one after the other
    {"sizes": [size or -1, …]}\\n            its answer; the pyc files follow; -1: the module does not compile
    {"died": status}\\n                      its answer where the interpreter itself broke down

Each batch has a process of its own, which has compiled nothing before: what a process has done leaves traces in what it
compiles (interned strings, before Python 3.11 the order of sets), and bytecode must be the same everywhere.
"""

from __future__ import annotations

import json
import marshal
import subprocess
import sys
from importlib import util
from typing import Any, BinaryIO

_UNORDERED = sys.version_info < (3, 11)
"""Before 3.11 a set is marshalled in the order of its hashes; those of None and `...` are addresses of memory."""

_UNCHECKED_HASH = b"\x01\0\0\0"


def _is_reproducible(value: Any) -> bool:
    """Whether a code object or a constant of one is marshalled the same way in every process."""
    if isinstance(value, frozenset):
        return not any(element is None or element is Ellipsis for element in value)
    if isinstance(value, tuple):
        return all(map(_is_reproducible, value))
    return all(map(_is_reproducible, getattr(value, "co_consts", ())))


def _bytecode(source: bytes, path: str) -> bytes:
    """An unchecked hash-based pyc (PEP 552): importing it never looks at the source. Empty where there is none."""
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=0)
        if _UNORDERED and not _is_reproducible(code):
            return b""
        return util.MAGIC_NUMBER + _UNCHECKED_HASH + util.source_hash(source) + marshal.dumps(code)
    except Exception:
        return b""


def _compile_batch(line: bytes, stream: BinaryIO, answers: BinaryIO) -> None:
    results = [_bytecode(stream.read(size), path) for path, size in json.loads(line)["modules"]]
    answers.write(json.dumps({"sizes": [len(result) or -1 for result in results]}).encode() + b"\n")
    answers.write(b"".join(results))
    answers.flush()


def _serve(stream: BinaryIO, answers: BinaryIO, environment: dict[str, str]) -> None:
    command = [sys.executable, "-s", "-S", "-B", "-W", "ignore", "-c", sys.argv[1], sys.argv[1], "batch"]
    for line in iter(stream.readline, b""):
        sources = stream.read(sum(size for _, size in json.loads(line)["modules"]))
        child = subprocess.Popen(  # noqa: S603 - the command is ours
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        answer, _ = child.communicate(line + sources)
        if child.returncode != 0:
            answer = json.dumps({"died": child.returncode}).encode() + b"\n"
        answers.write(answer)
        answers.flush()


def main() -> None:
    """Serve batches until the input ends, or compile the one that is on it."""
    if sys.argv[2:] == ["batch"]:
        # Not the folder that it is started in.
        sys.path[:] = [path for path in sys.path if path]
        _compile_batch(sys.stdin.buffer.readline(), sys.stdin.buffer, sys.stdout.buffer)
        return
    import os

    # Of the image's variables only those that its programs may need; none of Python's own.
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    _serve(sys.stdin.buffer, sys.stdout.buffer, {**kept, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"})


if __name__ == "__main__":
    main()
