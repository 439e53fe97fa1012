"""What was worked out from an object, for as long as the same object is asked about."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class PerObject(Generic[K, V]):
    """Calls a function once for each object and arguments, for the objects that were asked about last.

    Objects are told apart by identity and need no hash. Who gets a value must not change it. Threads may work something
    out twice.

    Args:
        work: The function; the object comes first.
        most: How many values are kept.
    """

    def __init__(self, work: Callable[..., V], *, most: int = 8) -> None:
        self._work = work
        self._most = most
        # With the object, which keeps its identity from being given again.
        self._kept: dict[Any, tuple[K, V]] = {}

    def __call__(self, about: K, *arguments: Hashable) -> V:
        """The function's value."""
        key = (id(about), *arguments)
        found = self._kept.pop(key, None) or (about, self._work(about, *arguments))
        self._kept[key] = found  # the last one
        while len(self._kept) > self._most:
            self._kept.pop(next(iter(self._kept)), None)
        return found[1]
