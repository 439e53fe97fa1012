"""Requirements as values of `packaging`: each text is parsed once, and one at a time."""

from __future__ import annotations

import threading
from copy import copy
from functools import lru_cache

from packaging.requirements import Requirement

_alone = threading.Lock()


def parsed_requirement(text: str) -> Requirement:
    """What a line such as `pandas>=2; python_version < "3.13"` says (PEP 508); the caller's own, to be changed at will.

    From any thread. A base has a thousand such lines, which are read for every request.

    Raises:
        packaging.requirements.InvalidRequirement: It is none.
    """
    return copy(_parsed(text))


@lru_cache(maxsize=8192)
def _parsed(text: str) -> Requirement:
    # Strings in markers are read by `ast`. Python 3.11 counts the depth of all threads' trees together, and raises a
    # SystemError where two are at it (CPython issue 106905).
    with _alone:
        return Requirement(text)
