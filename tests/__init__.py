"""
The tests of kmsproto, run by trial; the folders mirror the layers.

No test may depend on how fast the machine is, so Hypothesis measures no times here.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("kmsproto", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kmsproto")
