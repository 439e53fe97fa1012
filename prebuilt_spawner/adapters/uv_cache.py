"""uv's own cache, which only uv may change."""

from __future__ import annotations

import logging
import os
import subprocess
from pathlib import Path

import uv

_log = logging.getLogger(__name__)

UV_FOLDER = "uv"
"""Where it is in the cache folder."""

_LOCK_SECONDS = 30
_CLEAN_SECONDS = 300


def clean_uv_cache(folder: Path) -> None:
    """Empty uv's cache; what cannot be removed is logged. Blocks.

    uv waits for resolutions that go on, and those that begin meanwhile wait for it. `uv cache prune` would leave all
    that is in ours: it has answers of the index, and no environments.
    """
    try:
        done = subprocess.run(  # noqa: S603 - uv, and a folder of ours
            [uv.find_uv_bin(), "cache", "clean", "--cache-dir", str(folder), "--no-config", "--color", "never"],
            env={**os.environ, "UV_LOCK_TIMEOUT": str(_LOCK_SECONDS)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_CLEAN_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("uv's cache %s was not made smaller: %s", folder, error)
        return
    if done.returncode:
        _log.warning("uv's cache %s was not made smaller: %s", folder, done.stderr.strip())
