"""What counts for all tests."""

from __future__ import annotations

import gc

import pytest
from hypothesis import settings

from .fuzzing import LONG

# The same cases each time: a run that fails has been caused by a change. The long run looks for new ones.
settings.register_profile("steady", derandomize=True, database=None)
if not LONG:
    settings.load_profile("steady")


@pytest.fixture(autouse=True, scope="module")
def _no_rubbish_of_others() -> None:
    """What earlier modules left takes the garbage collector a second, in the middle of a test that counts it."""
    gc.collect()
    gc.freeze()
