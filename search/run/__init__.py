"""The composition root: the only part of the search that sees Ray and trainers together."""

import os

# Before Ray is imported: it reads these once. Every cluster asks for a token (Ray turns that on
# for local ones only), no trial moves the current folder, no progress report is printed, and no
# stack of a lost trial: the searcher says it in a line.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_WARN_THRESHOLD_S", "10")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
# A cluster of this machine alone listens on loopback where Ray takes the machine for one that can
# be in no other cluster, as it does on two systems; elsewhere its ports are open to the network.
if not os.environ.get("RAY_ADDRESS"):
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
