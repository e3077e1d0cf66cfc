"""Settings of all tiers."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# On a busy machine the time of one example says nothing. CI draws the same examples each time.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
