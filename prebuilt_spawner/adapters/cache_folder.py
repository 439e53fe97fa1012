"""The folder where wheels, fragments, uv's cache and what is known of bases are kept."""

from __future__ import annotations

from pathlib import Path

_OURS_ALONE = 0o700


def make_folder(folder: Path, *, cache_dir: Path) -> None:
    """Make a folder in the cache folder, where it is not there yet.

    The cache folder itself is made with mode 0700, because what lies in it goes into images and what users ask for can
    be read from it. One that is there already keeps the mode that the administrator gave it.

    Raises:
        OSError: It cannot be made.
    """
    cache_dir.mkdir(mode=_OURS_ALONE, parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
