"""What `paploss` says to the shell."""

from enum import IntEnum


class Interrupted(Exception):
    """The user asked for the end; what was finished is kept."""


class Exit(IntEnum):
    """0 done; 1 a check found a fault; 2 something given is wrong; 3 the search or training stopped
    by itself; 130 interrupted. After 3 and 130, `paploss resume` goes on."""

    OK = 0
    FAULT = 1
    BAD_INPUT = 2
    STOPPED = 3
    INTERRUPTED = 130
