"""Settings for the properties of this folder."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long one example takes says more about what else the machine does; tests that are about time measure it.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
