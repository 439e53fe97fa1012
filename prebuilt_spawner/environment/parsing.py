"""Requirements as values of `packaging`: each text is parsed once, and one at a time."""

from __future__ import annotations

import threading
from functools import lru_cache

from packaging.requirements import Requirement

one_at_a_time = threading.Lock()
"""Held by whoever parses markers. `packaging` reads their strings by `ast`, and Python 3.11 counts the depth of all
threads' trees together: it raises a SystemError where two are at it (CPython issue 106905)."""


def parsed_requirement(text: str) -> Requirement:
    """What a line such as `pandas>=2; python_version < "3.13"` says (PEP 508); the caller's own, to be changed at will.

    From any thread. A base has a thousand such lines, which are read for every request.

    Raises:
        packaging.requirements.InvalidRequirement: It is none.
    """
    parsed = _parsed(text)
    # Its own way to copy parses the text once more.
    copied = Requirement.__new__(Requirement)
    copied.name, copied.url, copied.extras = parsed.name, parsed.url, set(parsed.extras)
    copied.specifier, copied.marker = parsed.specifier, parsed.marker
    return copied


@lru_cache(maxsize=8192)
def _parsed(text: str) -> Requirement:
    with one_at_a_time:
        return Requirement(text)
