"""Making folders in the cache folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from prebuilt_spawner.adapters.base_probe import ProbeShelf
from prebuilt_spawner.adapters.cache_folder import make_folder


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """One that takes no permission away."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_cache_folder_that_is_made_is_the_hubs_alone(tmp_path: Path) -> None:
    cache = tmp_path / "above" / "cache"
    make_folder(cache / "wheels" / "ab", cache_dir=cache)
    make_folder(cache / "wheels" / "ab", cache_dir=cache)
    assert (cache / "wheels" / "ab").is_dir()
    assert mode(cache) == 0o700


def test_one_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o750)
    make_folder(cache / "wheels", cache_dir=cache)
    assert mode(cache) == 0o750


def test_probes_are_kept_in_it_too(tmp_path: Path) -> None:
    ProbeShelf(tmp_path / "cache" / "probes").put("d" * 64, "{}")
    assert mode(tmp_path / "cache") == 0o700
