"""Files that appear whole under their names or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_BUFFER_BYTES = 1024 * 1024


@contextmanager
def appearing_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets its name when all is written, and is gone when something failed."""
    # Not of the file's own name, which may be as long as names can be.
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    temporary = Path(name)
    try:
        with open(number, "wb", buffering=_BUFFER_BYTES) as stream:  # noqa: PTH123 - a file descriptor
            yield stream
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
