"""For all tests."""

import os

import hypothesis

# As search.run.tune does before it imports Ray, which reads this once: here, tests that import Ray
# for themselves come first.
os.environ.setdefault("RAY_AUTH_MODE", "token")

# Timings never decide a test.
hypothesis.settings.register_profile("paploss", deadline=None)
hypothesis.settings.load_profile("paploss")
