"""What the tests of the core share."""

from __future__ import annotations

from hypothesis import settings

# How long one example takes says nothing on a busy machine; the tests of hostile input measure what matters.
settings.register_profile("core", deadline=None)
settings.load_profile("core")
