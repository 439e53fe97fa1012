"""How tests disturb the in-memory doubles."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from ..errors import PrebuiltError


@dataclass
class Switches:
    """How tests disturb a double.

    Attributes:
        failures: What the method of this name raises, until it is taken out.
        gates: What the method of this name waits for before it does anything.
        calls: How often each method was called.
        cancelled: How often a call was cancelled at its gate.
    """

    failures: dict[str, PrebuiltError] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    cancelled: Counter[str] = field(default_factory=Counter)

    async def pass_through(self, method: str) -> None:
        """Count the call, wait for its gate, raise its failure; always gives other tasks a turn."""
        self.calls[method] += 1
        gate = self.gates.get(method)
        try:
            await (asyncio.sleep(0) if gate is None else gate.wait())
        except asyncio.CancelledError:
            self.cancelled[method] += 1
            raise
        if method in self.failures:
            raise self.failures[method]
