"""For all tests."""

import os

# As search.run.tune does before it imports Ray, which reads this once: here, tests that import Ray
# for themselves come first.
os.environ.setdefault("RAY_AUTH_MODE", "token")
