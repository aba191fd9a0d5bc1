"""paploss: a search service for detection losses.

This package holds the few things that every other package shares: the version,
the errors that users see, strict settings models and atomic files. It imports
none of the others.
"""

__version__ = "0.1.0"
