"""Sizes as people read them."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB")


def size_in_words(size_bytes: int) -> str:
    """Two digits where the first would say too little, in kB, MB or GB of 1000: `45 MB`."""
    size = size_bytes / 1000
    for unit in _UNITS:
        if size < 999.5 or unit == _UNITS[-1]:
            break
        size /= 1000
    if size < 9.95 and unit != "kB":
        return f"{size:.1f} {unit}".replace(".0 ", " ")
    return f"{max(1, round(size))} {unit}"
