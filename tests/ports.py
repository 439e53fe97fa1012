"""Ports for servers that a test starts and cannot hand a socket to."""

from __future__ import annotations

import contextlib
import fcntl
import random
import socket
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

# Below what systems give away by themselves, an engine for its containers too: whoever binds there has asked for it.
_FIRST, _LAST = 20_000, 32_000
_OF_A_PROCESS = 300

_given: set[int] = set()
_files: list[IO[str]] = []


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Different ports on which nothing listens at the moment, and which no other test is given."""
    found: list[int] = []
    ports = _ports_of_this_process()
    if len(_given) > _OF_A_PROCESS - 50:
        _given.clear()  # those that were given long ago
    for port in random.sample(ports, len(ports)):
        if port in _given:
            continue
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind((address, port))
            found.append(port)
        if len(found) == count:
            _given.update(found)
            return found
    raise AssertionError(f"there are no {count} free ports")


@cache
def _ports_of_this_process() -> range:
    """Suites run side by side, and a hub that is started anew must find its port as it left it."""
    for begin in range(_FIRST, _LAST, _OF_A_PROCESS):
        with contextlib.suppress(OSError):  # another process has it, or another user
            file = Path(tempfile.gettempdir(), f"ports-{begin}-of-prebuilt-spawner-tests").open("a")  # noqa: SIM115
            _files.append(file)  # for as long as the process runs
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return range(begin, begin + _OF_A_PROCESS)
    raise AssertionError("every port of the tests belongs to another process")
