"""What was asked for, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCHEMA = 1
"""Version of every canonical form whose digest is kept; a new one gives everything a new name."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentSpec:
    """The packages that an environment adds to its base.

    Attributes:
        requirements: Canonical, as `environment.requirements` makes them. Order and repetition mean nothing.
        conda: The place of conda packages, which are not supported yet; always empty.
    """

    requirements: tuple[str, ...]
    conda: tuple[str, ...] = ()

    def canonical(self) -> dict[str, Any]:
        """The form that digests are made of."""
        return {
            "schema": SCHEMA,
            "kind": "spec",
            "requirements": sorted(set(self.requirements)),
            "conda": sorted(set(self.conda)),
        }
