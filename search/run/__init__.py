"""The composition root: the only part of the search that sees Ray and trainers together."""

import os

# Before Ray is imported: it reads these once. Every cluster asks for a token (Ray turns that on
# for local ones only), no trial moves the current folder, and no progress report is printed.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "10")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
