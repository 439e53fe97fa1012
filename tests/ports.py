"""Ports for servers that a test starts and cannot hand a socket to."""

from __future__ import annotations

import contextlib
import random
import socket

# Below what systems give away by themselves, an engine for its containers too: whoever binds there has asked for it.
_FIRST, _LAST = 20_000, 32_000


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Different ports on which nothing listens at the moment."""
    found: list[int] = []
    for port in random.sample(range(_FIRST, _LAST), 1000):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind((address, port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"there are no {count} free ports")
