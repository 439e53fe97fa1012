"""Trait values that hold for one start."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from jupyterhub.utils import recursive_update
from traitlets import HasTraits


def merged(current: Any, override: Any) -> Any:
    """A trait's value after an override, as KubeSpawner merges `kubespawner_override`: dicts recursively, where None
    removes a key; everything else replaced. Neither argument is changed."""
    if isinstance(current, dict) and isinstance(override, dict):
        value = copy.deepcopy(current)
        recursive_update(value, override)
        return value
    return copy.deepcopy(override)


class TraitOverrides:
    """Changes traits of one object, and knows how to change them back."""

    def __init__(self, target: HasTraits) -> None:
        self._target = target
        self._before: dict[str, Any] = {}

    def apply(self, values: Mapping[str, Any]) -> None:
        """Set traits, dicts merged into what is there. A callable value gets the object and returns the value.

        Raises:
            ValueError: There is no such trait.
            TraitError: A trait does not take the value.
        """
        for name, value in values.items():
            if not self._target.has_trait(name):
                raise ValueError(f"{type(self._target).__name__} has no setting {name}")
            current = getattr(self._target, name)
            self._before.setdefault(name, current)
            setattr(self._target, name, merged(current, value(self._target) if callable(value) else value))

    def original(self, name: str) -> Any:
        """A trait's value without what was applied."""
        return self._before[name] if name in self._before else getattr(self._target, name)

    def undo(self) -> None:
        """Every changed trait has its former value again."""
        before, self._before = self._before, {}
        for name, value in before.items():
            setattr(self._target, name, value)
